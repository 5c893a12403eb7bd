"""The tensor vocabulary: shapes with named axes, so that a signature tells what goes where.

Two layouts are in use. Inside kernels the component axis comes first and the muon axis last, so that one component of
all muons is one contiguous row. At the border, where users look, batch axes come first and components last.

The aliases are jaxtyping types: they cost nothing when the library runs, and the tests can check them.
"""

from __future__ import annotations

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "Covariance",
    "Directions",
    "Hits",
    "HitsXYZ",
    "MuonIds",
    "MuonMask",
    "Muons",
    "PerMuon",
    "Planar",
    "Positions",
    "Slopes",
    "Vec3",
    "VoxelCounts",
    "VoxelCube",
    "VoxelIndices",
]

# --- inside kernels: component axis first, muon axis last ---

PerMuon = Float[Tensor, " muon"]
"""One number a muon."""

Positions = Float[Tensor, "3 muon"]
"""Positions x, y, z, m."""

Directions = Float[Tensor, "3 muon"]
"""Unit vectors of motion; a falling muon has a negative third component."""

Planar = Float[Tensor, "2 muon"]
"""Positions or displacements x, y, m."""

Slopes = Float[Tensor, "2 muon"]
"""Slopes dx/d(-z), dy/d(-z): positive while falling towards +x, +y."""

Hits = Float[Tensor, "hit 2 muon"]
"""Positions x, y of the hits of one side, m."""

Covariance = Float[Tensor, "c c muon"]
"""Covariance matrices of c quantities."""

MuonIds = Int[Tensor, " muon"]
"""Identities of muons in their stream."""

MuonMask = Bool[Tensor, " muon"]
"""Which muons to keep: true = keep."""

# --- at the border: batch axes first, components last ---

Muons = Float[Tensor, "muon 5"]
"""x [m], y [m], p [GeV], theta [rad], phi [rad] of generated muons."""

HitsXYZ = Float[Tensor, "muon hit 3"]
"""Positions x, y, z of hits, m."""

Vec3 = Float[Tensor, "*batch 3"]
"""Vectors x, y, z."""

VoxelCube = Float[Tensor, "z x y"]
"""One number a voxel; layer 0 is the lowest."""

VoxelCounts = Int[Tensor, "z x y"]
"""One count a voxel; layer 0 is the lowest."""

VoxelIndices = Int[Tensor, "muon 3"]
"""Indices x, y, z of the voxel that a point lies in."""
