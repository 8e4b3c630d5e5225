"""The claims of the papers, one file per config file; `cnn_papers.claims.catalogue` finds them."""
