"""What a detector is for: how designs are evaluated on volumes that the optimisation has never seen."""
