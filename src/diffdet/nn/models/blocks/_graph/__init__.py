"""Graph blocks; `gnn_blocks.py` is their table of contents."""
