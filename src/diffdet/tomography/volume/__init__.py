"""Layers, detector panels and the volume they make up."""
