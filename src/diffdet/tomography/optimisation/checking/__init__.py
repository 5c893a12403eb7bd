"""Whether the gradients of a design are right, and how much of them is noise."""

from diffdet.tomography.optimisation.checking.compare import FamilyCheck as FamilyCheck
from diffdet.tomography.optimisation.checking.compare import GradientCheck as GradientCheck
from diffdet.tomography.optimisation.checking.compare import check_gradients as check_gradients
from diffdet.tomography.optimisation.checking.non_finite import NonFinite as NonFinite
from diffdet.tomography.optimisation.checking.replay import ReplayedUpdate as ReplayedUpdate

__all__ = ["FamilyCheck", "GradientCheck", "NonFinite", "ReplayedUpdate", "check_gradients"]
