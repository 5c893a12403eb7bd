"""Units as plain floats: multiply to enter the house, divide to leave it.

The base units are metre = 1, GeV = 1, radian = 1, kilogram per cubic metre = 1 (densities), second = 1. A length of 15
mm is ``15 * mm``; a width in centimetres is ``width / cm``.
"""

import math
from typing import Final

metre: Final = 1.0
m: Final = metre
cm: Final = 1e-2
mm: Final = 1e-3
um: Final = 1e-6
km: Final = 1e3

radian: Final = 1.0
rad: Final = radian
mrad: Final = 1e-3
deg: Final = math.pi / 180

GeV: Final = 1.0
MeV: Final = 1e-3
keV: Final = 1e-6
TeV: Final = 1e3

second: Final = 1.0
s: Final = second
ms: Final = 1e-3
us: Final = 1e-6
ns: Final = 1e-9
minute: Final = 60.0
hour: Final = 3600.0

kg_per_m3: Final = 1.0
g_per_cm3: Final = 1e3
