"""The papers' claims: the runs that ask them, what is read off those, and verdicts."""
