"""Physical constants: value, unit, source. Units are those of `diffdet.core.units` (metre, GeV, radian)."""

from typing import Final

MUON_MASS: Final = 0.1056583755
"""Mass of the muon, GeV. Particle Data Group, Review of Particle Physics 2024, summary table of leptons."""

SCATTER_COEF_A: Final = 0.0136
"""Highland's leading coefficient, GeV. PDG Review 2024, section 34.3, eq. 34.16 (Lynch and Dahl, NIM B 58 (1991) 6)."""

SCATTER_COEF_B: Final = 0.038
"""Highland's coefficient of the logarithm, dimensionless. PDG Review 2024, section 34.3, eq. 34.16."""
