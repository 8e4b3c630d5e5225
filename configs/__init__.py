"""The recipes of the papers, one file a paper."""
