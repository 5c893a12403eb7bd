"""One file a format: how a table of columns gets in and out of it, piece by piece."""
