"""The wrapper that holds a volume, its optimisers and its loss, and runs the fit."""
