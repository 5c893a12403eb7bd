"""Configurations, what is built from them, run folders and jobs."""
