"""Pictures of volumes, tracks, predictions and diagnostics."""

from diffdet.tomography.plotting.diagnostics import plot_hit_density as plot_hit_density
from diffdet.tomography.plotting.diagnostics import plot_scatter_density as plot_scatter_density
from diffdet.tomography.plotting.predictions import plot_pred_true_x0 as plot_pred_true_x0
from diffdet.tomography.plotting.tracks import plot_scatter as plot_scatter
from diffdet.tomography.plotting.volume import draw_volume as draw_volume
