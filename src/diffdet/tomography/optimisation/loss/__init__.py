"""Losses: how well the task is done and what the detector costs."""
