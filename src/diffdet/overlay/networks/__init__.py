"""Networks that paint sensor images, written as they are documented; `diffdet.overlay.inference` makes them fast."""
