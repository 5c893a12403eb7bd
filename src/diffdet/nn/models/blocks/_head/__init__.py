"""Heads; `head.py` is their table of contents."""
