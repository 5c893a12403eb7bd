"""Configurations: what a run is, checked before anything starts.

`load_config` reads YAML, TOML, JSON or a built-in design into a `RunConfig`; nothing here imports torch.
"""

from diffdet.runs.config.geometry import DetectorConfig as DetectorConfig
from diffdet.runs.config.geometry import PanelConfig as PanelConfig
from diffdet.runs.config.geometry import PassiveConfig as PassiveConfig
from diffdet.runs.config.geometry import VolumeConfig as VolumeConfig
from diffdet.runs.config.physics import LayoutConfig as LayoutConfig
from diffdet.runs.config.reading import DEFAULT_DESIGN as DEFAULT_DESIGN
from diffdet.runs.config.reading import as_mapping as as_mapping
from diffdet.runs.config.reading import builtin_names as builtin_names
from diffdet.runs.config.reading import builtin_text as builtin_text
from diffdet.runs.config.reading import json_schema as json_schema
from diffdet.runs.config.reading import load_config as load_config
from diffdet.runs.config.reading import to_yaml as to_yaml
from diffdet.runs.config.run import FORMAT_VERSION as FORMAT_VERSION
from diffdet.runs.config.run import RunConfig as RunConfig
