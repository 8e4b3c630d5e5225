"""One file per paper; `shared/` holds the code that several papers use."""
