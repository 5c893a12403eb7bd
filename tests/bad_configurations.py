"""Configurations that cannot be used: what is wrong, and what the message must name.

Each case is a change to the built-in `hello_world` (or the ladle furnace), the path of the field, the given value as it
must appear, and words of the expectation.
"""

from __future__ import annotations

from typing import NamedTuple


class Bad(NamedTuple):
    """A change that makes a configuration unusable."""

    change: str
    field: str
    given: str
    expected: str
    design: str = "hello_world"


UNUSABLE = [
    # keys that nobody knows
    Bad("volume.budgett=3", "volume.budgett", "budgett", "Did you mean `budget`?"),
    Bad("sede=3", "sede", "sede", "Did you mean `seed`?"),
    Bad("muons.momentun=3", "muons.momentun", "momentun", "Did you mean `momentum`?"),
    Bad("volume.layers.0.panels.0.efficency=1", "volume.layers[0].panels[0].efficency", "efficency", "`efficiency`"),
    Bad("schedule.epoch=3", "schedule.epoch", "epoch", "Did you mean `epochs`?"),
    Bad("loss.target_bugdet=3", "loss.target_bugdet", "target_bugdet", "Did you mean `target_budget`?"),
    # voxels and layers
    Bad("volume.lw=[1.05, 1.0]", "volume.lw[0]", "1.05", "whole multiple of the voxel edge"),
    Bad("volume.lw=[1.0, 0.97]", "volume.lw[1]", "0.97", "whole multiple of the voxel edge"),
    Bad("volume.lw=[-1.0, 1.0]", "volume.lw[0]", "-1.0", "greater than 0"),
    Bad("volume.lw=1.0", "volume.lw", "1.0", "a list"),
    Bad("volume.layers.1.voxel=0.25", "volume.layers[1].thickness", "0.6", "whole multiple"),
    Bad("volume.layers.1.voxel=0", "volume.layers[1].voxel", "0", "greater than 0"),
    Bad("volume.layers.1.voxel=-0.1", "volume.layers[1].voxel", "-0.1", "greater than 0"),
    Bad("volume.layers.1.thickness=0", "volume.layers[1].thickness", "0", "greater than 0"),
    Bad("volume.layers.1.z=0.9", "volume.layers[1].z", "0.9", "0.8 m"),
    Bad("volume.layers.1.step=0", "volume.layers[1].step", "0", "greater than 0"),
    Bad("volume.layers.1.scatter_model=geant", "volume.layers[1].scatter_model", "geant", "'pdg' or 'pdg-step'"),
    Bad("volume.layers.1.kind=pasive", "volume.layers[1].kind", "pasive", "Did you mean `passive`?"),
    Bad("volume.layers.2.position=above", "volume.layers", "above", "position: below"),
    Bad("volume.layers=[]", "volume.layers", "[]", "at least 3"),
    # panels
    Bad(
        "volume.layers.0.panels.0.xyz=[0.25, 0.25, 0.7]", "volume.layers[0].panels[0].xyz[2]", "0.7", "from 0.8 to 1 m"
    ),
    Bad("volume.layers.2.panels.3.xyz=[0.25, 1.25, 0.1]", "volume.layers[2].panels[3].xyz[1]", "1.25", "from 0 to 1 m"),
    Bad("volume.layers.0.panels.1.resolution=0", "volume.layers[0].panels[1].resolution", "0", "greater than 0"),
    Bad("volume.layers.0.panels.1.resolution=-5", "volume.layers[0].panels[1].resolution", "-5", "greater than 0"),
    Bad("volume.layers.0.panels.1.resolution=.inf", "volume.layers[0].panels[1].resolution", "inf", "finite"),
    Bad("volume.layers.0.panels.1.efficiency=0", "volume.layers[0].panels[1].efficiency", "0", "greater than 0"),
    Bad("volume.layers.0.panels.1.efficiency=-0.1", "volume.layers[0].panels[1].efficiency", "-0.1", "greater than 0"),
    Bad("volume.layers.0.panels.1.efficiency=1.5", "volume.layers[0].panels[1].efficiency", "1.5", "or equal to 1"),
    Bad("volume.layers.0.panels.1.span=[0, 1]", "volume.layers[0].panels[1].span[0]", "0", "greater than 0"),
    Bad("volume.layers.0.panels.1.cost_per_m2=0", "volume.layers[0].panels[1].cost_per_m2", "0", "greater than 0"),
    Bad(
        "volume.layers.0.panels.1.class=DetectorPanle",
        "panels[1].class",
        "DetectorPanle",
        "Did you mean `DetectorPanel`?",
    ),
    Bad("volume.layers.0.panels.1.smooth=0.1", "panels[1].smooth", "0.1", "SigmoidDetectorPanel"),
    Bad("volume.layers.0.panels.1.xyz=[0, 0]", "panels[1].xyz[2]", "nothing", "the key is missing"),
    Bad(
        "volume.layers.0.panels=[{xyz: [0,0,1], span: [1,1]}]", "volume.layers", "1 above", "at least two panels above"
    ),
    Bad(
        "volume.layers.0.panels.0.smooth=0", "volume.layers[0].panels[0].smooth", "0", "greater than 0", "ladle_furnace"
    ),
    # budgets
    Bad("volume.budget=0", "volume.budget", "0", "greater than 0"),
    Bad("volume.budget=-6", "volume.budget", "-6", "greater than 0", "ladle_furnace"),
    Bad("volume.budget=.nan", "volume.budget", "nan", "finite"),
    Bad("loss.target_budget=-20", "loss.target_budget", "-20", "greater than 0"),
    Bad("volume.budget=null", "optimiser.budget", "Adam", "volume.budget", "ladle_furnace"),
    # materials
    Bad("passives.layouts.0.background_x0=-1", "passives.layouts[0].background_x0", "-1", "greater than 0"),
    Bad("passives.layouts.0.background=leed", "passives.layouts[0].background", "leed", "lead"),
    Bad("passives.layouts.0.blocks.0={x0: 0, low: [0,0,0], high: [1,1,1]}", "blocks[0].x0", "0", "greater than 0"),
    Bad("passives.layouts.0.blocks.0.x0=0.01", "passives.layouts[0].blocks[0]", "0.01", "either `material` or `x0`"),
    Bad("passives.layouts.0.blocks.0.low=[0.5, 0.5, 0.9]", "blocks[0].low[2]", "0.9", "below `high[2]`"),
    Bad("passives.layouts.0.blocks.0.high=[1.0, 1.0, 0.301]", "blocks[0]", "0.301", "the centre of a voxel"),
    Bad("passives.layouts=[{file: nowhere.npz}]", "passives.layouts[0].file", "nowhere.npz", "NPZ or HDF5"),
    Bad("passives.generator.args.x0_furnace=-1", "passives.generator", "-1", "greater than 0", "ladle_furnace"),
    Bad(
        "passives.generator.args.x0_furnance=1",
        "passives.generator.args.x0_furnance",
        "x0_furnance",
        "`x0_furnace`",
        "ladle_furnace",
    ),
    Bad(
        "passives.generator.variants.0.fixed_mat_z=3",
        "passives.generator.variants[0]",
        "3",
        "fixed_mat_z",
        "ladle_furnace",
    ),
    Bad("passives.train=0", "passives.train", "0", "greater than or equal to 1"),
    # muons
    Bad("muons.per_volume=0", "muons.per_volume", "0", "greater than or equal to 1"),
    Bad("muons.per_volume=-3", "muons.per_volume", "-3", "greater than or equal to 1"),
    Bad("muons.per_volume=10.5", "muons.per_volume", "10.5", "whole number"),
    Bad("muons.momentum=0", "muons.momentum", "0", "greater than 0"),
    Bad("muons.momentum=5 Gev", "muons.momentum", "5 Gev", "GeV, MeV"),
    Bad("muons.energy_range=[5, 2]", "muons.energy_range", "[5.0, 2.0]", "lower and a higher"),
    Bad("muons.theta_range=[0, 100 deg]", "muons.theta_range[1]", "1.74", "below pi/2"),
    Bad("muons.x_range=[0, 1]", "muons", "x_range", "both `x_range` and `y_range`"),
    Bad("muons.class=MuonGenerator2017", "muons.class", "MuonGenerator2017", "Did you mean"),
    # optimisation
    Bad("optimiser.xy_pso={lr: 1}", "optimiser.xy_pso", "xy_pso", "Did you mean `xy_pos`?"),
    Bad("optimiser.xy_pos={}", "optimiser.xy_pos", "None", "either `rate` or `lr`"),
    Bad("optimiser.xy_pos.rate=-1 cm", "optimiser.xy_pos.rate", "-1 cm", "greater than 0"),
    Bad("optimiser.xy_pos.rate=1 centimetre", "optimiser.xy_pos.rate", "1 centimetre", "m, km, cm, mm"),
    Bad("optimiser.xy_pos.class=Adamm", "optimiser.xy_pos.class", "Adamm", "Did you mean `Adam`?"),
    Bad(
        "optimiser.xy_pos.args={momentun: 0.9}",
        "optimiser.xy_pos.args.momentun",
        "momentun",
        "Did you mean `momentum`?",
    ),
    Bad("optimiser.xy_pos.args={momentum: -0.9}", "optimiser.xy_pos", "-0.9", "momentum"),
    Bad("optimiser={}", "optimiser", "none", "at least one family"),
    Bad("schedule.epochs=0", "schedule.epochs", "0", "greater than or equal to 1"),
    Bad("schedule.epochs='3'", "schedule.epochs", "'3'", "whole number"),
    Bad("schedule.warmup_epochs=0", "schedule.warmup_epochs", "0", "has a `rate`"),
    Bad("schedule.volumes_per_update=9", "schedule.volumes_per_update", "9", "at most 1"),
    Bad("callbacks.0=MuonResamplr", "callbacks[0]", "MuonResamplr", "Did you mean `MuonResampler`?"),
    Bad("callbacks.2.args.max_xy_setp=[1,1]", "callbacks[2].args.max_xy_setp", "max_xy_setp", "`max_xy_step`"),
    Bad("callbacks.0=nowhere:Callback", "callbacks[0].class", "nowhere:Callback", "cannot be imported"),
    Bad("callbacks.0=os:system", "callbacks[0].class", "os:system", "standard library"),
    Bad("callbacks.0=torch:Tensor", "callbacks[0].class", "torch:Tensor", "inherits from"),
    Bad("callbacks=[MuonResampler]", "loss", "None", "a callback that supplies one", "ladle_furnace"),
    Bad("loss.class=VoxelX0Lost", "loss.class", "VoxelX0Lost", "Did you mean `VoxelX0Loss`?"),
    Bad("inference.volume=PanelInferrer", "inference.volume", "PanelInferrer", "Did you mean `PanelX0Inferrer`?"),
    Bad("task.class=ladle", "task.class", "ladle", "ladle_furnace"),
    Bad("task.args.volums=3", "task.args.volums", "volums", "Did you mean `volumes`?"),
    Bad("checkpoints.every=5 minutes", "checkpoints.every", "5 minutes", "s, ms, min, h"),
    Bad("checkpoints.keep=0", "checkpoints.keep", "0", "greater than or equal to 1"),
    # the whole
    Bad("seed=-1", "seed", "-1", "greater than or equal to 0"),
    Bad("seed=true", "seed", "True", "whole number"),
    Bad("device=gpu", "device", "gpu", "`cuda`"),
    Bad("device=cuda:99", "device", "cuda:99", "one that is there"),
    Bad("format_version=2", "format_version", "2", "newest version"),
    Bad("muons=null", "muons", "None", "a section of keys"),
    Bad("description=2020-01-01", "description", "2020", "text"),
]
