"""Background of a pixel detector, generated on the fly: sensors, digits, generators, files, training, fidelity.

Importing this package loads nothing; its modules load torch when they need it.
"""
