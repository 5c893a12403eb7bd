"""Epochs, phases, events, updates, schedules and history; knows nothing of muons."""
