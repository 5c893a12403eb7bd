"""A stand-in for samples of background that cannot be had: particles through forty planes of silicon, read out."""
