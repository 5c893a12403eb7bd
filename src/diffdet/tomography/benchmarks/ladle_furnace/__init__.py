"""The fill level of a ladle furnace."""
