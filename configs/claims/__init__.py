"""The claims of the papers, one file a config file; `cnn_papers.claims.catalogue` finds them."""
