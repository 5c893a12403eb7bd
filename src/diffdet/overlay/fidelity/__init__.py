"""How near a sample of background is to another: figures, noise floor, baselines."""
