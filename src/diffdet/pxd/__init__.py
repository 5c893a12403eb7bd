"""Names of the pixel detector's packages in Belle II's software, over `diffdet.overlay`."""
