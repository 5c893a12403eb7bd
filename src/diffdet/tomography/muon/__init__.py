"""Muons, their hits and the generators that make them."""
