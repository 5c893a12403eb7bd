"""Worked problems with a known answer."""
