"""Layers that blocks are made of: activations, batch norms, self-attention."""
