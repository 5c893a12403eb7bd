"""From hits to tracks, scatterings and images of the radiation length."""

from diffdet.tomography.inference.scattering import GenScatterBatch as GenScatterBatch
from diffdet.tomography.inference.scattering import ScatterBatch as ScatterBatch
from diffdet.tomography.inference.volume import AbsIntClassifierFromX0 as AbsIntClassifierFromX0
from diffdet.tomography.inference.volume import AbsVolumeInferrer as AbsVolumeInferrer
from diffdet.tomography.inference.volume import AbsX0Inferrer as AbsX0Inferrer
from diffdet.tomography.inference.volume import DenseBlockClassifierFromX0s as DenseBlockClassifierFromX0s
from diffdet.tomography.inference.volume import PanelX0Inferrer as PanelX0Inferrer
