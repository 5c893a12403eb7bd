"""Passive volumes to optimise on."""

from diffdet.tomography.optimisation.data.layouts import BlockLayout as BlockLayout
from diffdet.tomography.optimisation.data.layouts import VoxelLayout as VoxelLayout
from diffdet.tomography.optimisation.data.passives import AbsBlockPassiveGenerator as AbsBlockPassiveGenerator
from diffdet.tomography.optimisation.data.passives import AbsPassiveGenerator as AbsPassiveGenerator
from diffdet.tomography.optimisation.data.passives import BlockPresentPassiveGenerator as BlockPresentPassiveGenerator
from diffdet.tomography.optimisation.data.passives import PassiveYielder as PassiveYielder
from diffdet.tomography.optimisation.data.passives import RandomBlockPassiveGenerator as RandomBlockPassiveGenerator
from diffdet.tomography.optimisation.data.passives import VoxelPassiveGenerator as VoxelPassiveGenerator
