"""Losses: how well the task is done and what the detector costs."""

from diffdet.tomography.optimisation.loss.loss import AbsDetectorLoss as AbsDetectorLoss
from diffdet.tomography.optimisation.loss.loss import AbsMaterialClassLoss as AbsMaterialClassLoss
from diffdet.tomography.optimisation.loss.loss import VolumeClassLoss as VolumeClassLoss
from diffdet.tomography.optimisation.loss.loss import VolumeIntClassLoss as VolumeIntClassLoss
from diffdet.tomography.optimisation.loss.loss import VolumeMSELoss as VolumeMSELoss
from diffdet.tomography.optimisation.loss.loss import VoxelClassLoss as VoxelClassLoss
from diffdet.tomography.optimisation.loss.loss import VoxelX0Loss as VoxelX0Loss
from diffdet.tomography.optimisation.loss.sub_losses import integer_class_loss as integer_class_loss
