"""Which class a name in a configuration stands for.

A class of ours goes by its documented name; a user's own as ``package.module:Class``. The table holds text only, so
that a configuration can be checked without importing torch; `resolve` imports. What is imported must be a class that
can play the part it is named for, so that a configuration can neither call a function nor construct an object of
somebody else's kind.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from diffdet.core.errors import InputError
from diffdet.runs.messages import did_you_mean

_TOMOGRAPHY = "diffdet.tomography"
_CALLBACKS = f"{_TOMOGRAPHY}.optimisation.callbacks"
_LOSSES = f"{_TOMOGRAPHY}.optimisation.loss.loss"
_PASSIVES = f"{_TOMOGRAPHY}.optimisation.data.passives"
_LADLE = f"{_TOMOGRAPHY}.benchmarks.ladle_furnace"
_WALLS = f"{_TOMOGRAPHY}.benchmarks.small_walls"
_LORRY = f"{_TOMOGRAPHY}.benchmarks.u_lorry"
_NN = "diffdet.nn"
_BLOCKS = f"{_NN}.models.blocks"

ROLES: dict[str, dict[str, str]] = {
    "panel": dict.fromkeys(("DetectorPanel", "SigmoidDetectorPanel"), f"{_TOMOGRAPHY}.volume.panel"),
    "track inferrer": dict.fromkeys(("ScatterBatch", "GenScatterBatch"), f"{_TOMOGRAPHY}.inference.scattering"),
    "volume inferrer": {
        "PanelX0Inferrer": f"{_TOMOGRAPHY}.inference.volume",
        "PocaZLadleFurnaceFillLevelInferrer": f"{_LADLE}.inference",
        "EdgeDetLadleFurnaceFillLevelInferrer": f"{_LADLE}.inference",
        "LikelihoodLadleFurnaceFillLevelInferrer": f"{_LADLE}.likelihood",
        "ULorryLikelihoodClassifier": f"{_LORRY}.inference",
    },
    "loss": {
        **dict.fromkeys(
            ("VoxelX0Loss", "VoxelClassLoss", "VolumeClassLoss", "VolumeIntClassLoss", "VolumeMSELoss"), _LOSSES
        ),
        "LadleFurnaceIntClassLoss": f"{_LADLE}.loss",
        "ContrastLoss": f"{_WALLS}.loss",
    },
    "passive generator": {
        **dict.fromkeys(
            ("RandomBlockPassiveGenerator", "BlockPresentPassiveGenerator", "VoxelPassiveGenerator"), _PASSIVES
        ),
        "LadleFurnacePassiveGenerator": f"{_LADLE}.data",
        "SmallWallsPassiveGenerator": f"{_WALLS}.data",
        "ULorryPassiveGenerator": f"{_LORRY}.data",
    },
    "muon generator": dict.fromkeys(("MuonGenerator2015", "MuonGenerator2016"), f"{_TOMOGRAPHY}.muon.generation"),
    "callback": {
        "MuonResampler": f"{_CALLBACKS}.data_callbacks",
        "NoMoreNaNs": f"{_CALLBACKS}.grad_callbacks",
        "OptConfig": f"{_CALLBACKS}.warmup_callbacks",
        "CostCoefWarmup": f"{_CALLBACKS}.warmup_callbacks",
        "PanelCentring": f"{_CALLBACKS}.detector_callbacks",
        "PanelUpdateLimiter": f"{_CALLBACKS}.detector_callbacks",
        "SigmoidPanelSmoothnessSchedule": f"{_CALLBACKS}.detector_callbacks",
        "OneCycle": f"{_CALLBACKS}.opt_callbacks",
        "EpochSave": f"{_CALLBACKS}.opt_callbacks",
        "MetricLogger": f"{_CALLBACKS}.monitors",
        "LinearCorrectionCallback": f"{_LADLE}.inference",
        "SpreadRangeLoss": f"{_LADLE}.loss",
        "CorrectedErrorLoss": f"{_LADLE}.objective",
        "MissedBlockLoss": f"{_LORRY}.objective",
    },
    "optimiser": dict.fromkeys(
        ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Rprop"), "torch.optim"
    ),
    "network head": dict.fromkeys(
        (
            "CatEmbHead",
            "MultiHead",
            "InteractionNet",
            "RecurrentHead",
            "LorentzBoostNet",
            "AutoExtractLorentzBoostNet",
            "GNNHead",
        ),
        f"{_BLOCKS}.head",
    ),
    "network body": dict.fromkeys(("FullyConnected", "MultiBlock", "IdentBody"), f"{_BLOCKS}.body"),
    "network tail": dict.fromkeys(("ClassRegMulti", "IdentTail"), f"{_BLOCKS}.tail"),
    "network loss": dict.fromkeys(
        ("WeightedMSE", "WeightedMAE", "WeightedFractionalMSE", "WeightedCCE", "WeightedBCE"), f"{_NN}.losses"
    ),
    "network callback": {
        **dict.fromkeys(("CycleLR", "CycleMom", "CycleStep"), f"{_NN}.callbacks.cyclic_callbacks"),
        "OneCycleLR": f"{_NN}.callbacks.cyclic_callbacks:OneCycle",
        "GradClip": f"{_NN}.callbacks.opt_callbacks",
        "SWA": f"{_NN}.callbacks.model_callbacks",
    },
    "metric": {
        **dict.fromkeys(("RocAucScore", "BinaryAccuracy", "RegPull"), f"{_NN}.metrics"),
        **dict.fromkeys(("AMS", "MultiAMS"), f"{_NN}.physics.significance"),
    },
    "graph block": {
        **dict.fromkeys(("GravNet", "GraphCollapser", "NodePredictor"), f"{_BLOCKS}.gnn_blocks"),
        "GraphInteractionNet": f"{_BLOCKS}.gnn_blocks:InteractionNet",
    },
    "recurrent layer": dict.fromkeys(("RNN", "LSTM", "GRU"), "torch.nn"),
    "task": {
        "held_out_loss": "diffdet.runs.tasks.held_out_loss:HeldOutLoss",
        "ladle_furnace": "diffdet.runs.tasks.ladle_furnace:LadleFurnace",
        "u_lorry": "diffdet.runs.tasks.u_lorry:ULorry",
    },
}
"""For each part that a class can play: the documented names, and the module (or ``module:Class``) that each is
imported from."""

_BASES: dict[str, str] = {
    "panel": f"{_TOMOGRAPHY}.volume.panel:AbsPanel",
    "track inferrer": f"{_TOMOGRAPHY}.inference.scattering:ScatterBatch",
    "volume inferrer": f"{_TOMOGRAPHY}.inference.volume:AbsVolumeInferrer",
    "loss": f"{_LOSSES}:AbsDetectorLoss",
    "passive generator": f"{_PASSIVES}:AbsPassiveGenerator",
    "muon generator": f"{_TOMOGRAPHY}.muon.generation:AbsMuonGenerator",
    "callback": f"{_CALLBACKS}.callback:Callback",
    "optimiser": "torch.optim:Optimizer",
    "task": "diffdet.runs.tasks.base:AbsTask",
    "network head": f"{_BLOCKS}.head:AbsHead",
    "network body": f"{_BLOCKS}.body:AbsBody",
    "network tail": f"{_BLOCKS}.tail:AbsTail",
    "network loss": f"{_NN}.losses:AbsWeightedLoss",
    "network callback": f"{_NN}.callbacks.callback:Callback",
    "metric": f"{_NN}.metrics:EvalMetric",
    "graph block": "torch.nn:Module",
    "recurrent layer": "torch.nn:Module",
}
"""The class that a user's own class must inherit from to play each part."""


def is_own_name(name: str) -> bool:
    """Whether a name has the form ``package.module:Class``."""
    module, colon, attribute = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *attribute.split(".")))


def explain_unknown(role: str, name: str) -> tuple[str, str]:
    """What to expect instead of a name that is not known: ``(expected, hint)``."""
    names = list(ROLES[role])
    return f"the name of a {role} ({', '.join(names)}), or your own as `package.module:Class`", did_you_mean(
        name, names
    )


@contextmanager
def searching(paths: Sequence[str]) -> Iterator[None]:
    """Let `package.module:Class` be found in the given folders, too, while in the block."""
    before = list(sys.path)
    sys.path[:0] = list(paths)
    try:
        yield
    finally:
        sys.path[:] = before


def _fetch(target: str) -> Any:
    """The object behind ``module:attribute``."""
    module, _, attribute = target.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def resolve(role: str, name: str, where: str) -> type:
    """Import the class that a name stands for.

    Args:
        role: The part it plays, a key of `ROLES`.
        name: Documented name or ``package.module:Class``.
        where: Path of the field, for messages.

    Returns:
        The class.

    Raises:
        InputError: If the name is unknown, cannot be imported, or is not a class that can play the part.
    """
    known = ROLES[role]
    if name in known:
        target = known[name] if ":" in known[name] else f"{known[name]}:{name}"
        found: type = _fetch(target)
        return found
    expected, hint = explain_unknown(role, name)
    if not is_own_name(name):
        raise InputError(f"{where}: expected {expected}, given {name!r}{'. ' + hint if hint else ''}")
    # The standard library holds no panels or losses, and importing some of its modules has effects.
    if name.partition(":")[0].partition(".")[0] in sys.stdlib_module_names:
        raise InputError(f"{where}: expected {expected}, given {name!r}, which is part of Python's standard library")
    try:
        found = _fetch(name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"{where}: expected {expected}, given {name!r}, which cannot be imported ({error}). "
            "Install its package, or put its file beside the configuration or into a folder of `search_path`"
        ) from error
    except Exception as error:
        raise InputError(f"{where}: given {name!r}, but importing it raised {type(error).__name__}: {error}") from error
    base = _fetch(_BASES[role])
    if not (isinstance(found, type) and issubclass(found, base)):
        raise InputError(
            f"{where}: expected a class that inherits from {base.__module__}.{base.__name__}, given {name!r}"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise InputError(
            f"{where}: expected a class with every abstract method written, given {name!r}, which lacks {missing}"
        )
    return found


def accepted(function: Any) -> tuple[list[str], bool]:
    """Names of the keyword arguments that a class or function takes, and whether it takes any others."""
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


def construct(
    function: type, where: str, fixed: dict[str, Any], args: dict[str, Any], *, late: Sequence[str] = ()
) -> Any:
    """Bind arguments to a class, and call it unless some come later.

    Args:
        function: The class.
        where: Path of its section, for messages.
        fixed: Arguments that the house supplies where the class takes them.
        args: Arguments from the configuration; a value ``{class: NAME, args: {...}}`` stands for that class with its
            arguments.
        late: Arguments that are filled in later; when given, a `partial` is returned.

    Returns:
        An instance, or a `partial` of the class.

    Raises:
        InputError: If the class does not take an argument, misses one, or refuses a value.
    """
    names, takes_any = accepted(function)
    for key in args:
        if key not in names and not takes_any:
            own = [name for name in names if name not in fixed and name not in late and name != "self"]
            hint = did_you_mean(key, own)
            raise InputError(
                f"{where}.args.{key}: expected an argument of {function.__name__} "
                f"({', '.join(own) or 'it has none'}), given {key!r}"
                f"{'. ' + hint if hint else ''}"
            )
    values = {key: value for key, value in fixed.items() if key in names or takes_any}
    values |= {key: _resolve_nested(value, f"{where}.args.{key}") for key, value in args.items()}
    if late:
        return partial(function, **values) if values else function
    missing = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name not in values
    ]
    if missing:
        raise InputError(
            f"{where}.args.{missing[0]}: expected a value, which {function.__name__} requires, given nothing"
        )
    try:
        return function(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(
            f"{where}: {function.__name__} does not accept {args!r}: {type(error).__name__}: {error}"
        ) from error


def _resolve_nested(value: Any, where: str) -> Any:
    """An argument that names a class becomes that class with its own arguments bound."""
    if isinstance(value, dict) and "class" in value and set(value) <= {"class", "args"}:
        name = value["class"]
        for role, names in ROLES.items():
            if name in names:
                return construct(
                    resolve(role, name, where), where, {}, dict(value.get("args") or {}), late=("anything",)
                )
        every = [name for names in ROLES.values() for name in names]
        hint = did_you_mean(str(name), every)
        raise InputError(
            f"{where}.class: expected the name of a class of ours, given {name!r}{'. ' + hint if hint else ''}"
        )
    return value
