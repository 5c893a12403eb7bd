"""Network blocks for physics data: heads, bodies, tails, models and their training."""
