"""Fits of networks on the house's loop, and of many networks one after the other."""
