"""Claims of the papers: the runs that test them, metrics read off these runs, and verdicts."""
