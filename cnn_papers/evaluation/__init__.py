"""The papers' test protocols."""
