"""Steps, losses, data and callbacks of the optimisation of a detector."""
