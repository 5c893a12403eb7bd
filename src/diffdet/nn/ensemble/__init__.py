"""Several models that predict together."""
