"""The papers' recipes: one file per paper."""
