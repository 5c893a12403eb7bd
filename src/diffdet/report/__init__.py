"""Self-contained reports of a run."""
