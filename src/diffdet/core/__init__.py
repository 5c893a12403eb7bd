"""Vocabulary of the library: units, constants, materials, errors, checks, random streams. Needs torch only."""
