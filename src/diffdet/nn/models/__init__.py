"""Networks: initialisations, layers, blocks, and the builder and model that put them together."""
