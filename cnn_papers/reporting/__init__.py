"""Reports: results gathered from runs, in words, figures and a page."""
