"""Numerics: pure functions from tensors to tensors."""
