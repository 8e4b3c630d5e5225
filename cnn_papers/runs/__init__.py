"""One run: put together from its config, and kept in its folder."""
