"""Pictures of volumes, tracks, predictions and diagnostics."""
