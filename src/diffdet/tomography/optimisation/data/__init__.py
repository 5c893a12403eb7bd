"""Passive volumes to optimise on."""
