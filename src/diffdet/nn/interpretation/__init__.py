"""What trained networks look at."""

from diffdet.nn.interpretation.features import get_ensemble_feat_importance as get_ensemble_feat_importance
from diffdet.nn.interpretation.features import get_nn_feat_importance as get_nn_feat_importance
