"""What may happen beside the optimisation, one concern each."""
