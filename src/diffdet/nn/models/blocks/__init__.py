"""Heads, bodies, tails and what they are made of. Every block is an ordinary `nn.Module`, usable alone."""
