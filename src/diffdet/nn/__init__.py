"""Network blocks for physics data: heads, bodies and tails that take a table or a matrix of objects to a trained model."""
