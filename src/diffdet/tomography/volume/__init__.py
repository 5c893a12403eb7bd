"""Layers, detector panels and the volume they make up."""

from diffdet.tomography.volume.heatmap import DetectorHeatMap as DetectorHeatMap
from diffdet.tomography.volume.layer import AbsDetectorLayer as AbsDetectorLayer
from diffdet.tomography.volume.layer import AbsLayer as AbsLayer
from diffdet.tomography.volume.layer import PanelDetectorLayer as PanelDetectorLayer
from diffdet.tomography.volume.layer import PassiveLayer as PassiveLayer
from diffdet.tomography.volume.panel import AbsPanel as AbsPanel
from diffdet.tomography.volume.panel import DetectorPanel as DetectorPanel
from diffdet.tomography.volume.panel import SigmoidDetectorPanel as SigmoidDetectorPanel
from diffdet.tomography.volume.scatter_model import AbsScatterModel as AbsScatterModel
from diffdet.tomography.volume.scatter_model import PgeantScatterModel as PgeantScatterModel
from diffdet.tomography.volume.volume import Volume as Volume
