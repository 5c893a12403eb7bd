"""Muon tomography whose detector is part of the gradient."""
