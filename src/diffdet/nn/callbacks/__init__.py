"""Callbacks of fits and predictions of networks."""
