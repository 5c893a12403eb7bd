"""Find buried walls."""
