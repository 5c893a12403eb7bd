"""Configurations of `diffdet train`: data, network, loss, schedule."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from diffdet.runs.config.quantities import Positive
from diffdet.runs.config.run import FORMAT_VERSION, check_device, check_format
from diffdet.runs.config.section import ClassSpec, Section
from diffdet.runs.config.training import CheckpointsConfig
from diffdet.runs.messages import did_you_mean, refuse

EXAMPLES = ("signal_background", "mass_regression")
"""Built-in problems, whose data the package makes."""

OBJECTIVES = ("classification", "multiclass", "regression")

OPTIMISERS = ("adam", "adamw", "sgd", "nadam", "radam", "rmsprop")


class ObjectsConfig(Section):
    """Objects of an event, such as jets, that stand beside its flat features."""

    names: Annotated[list[str], Field(min_length=1)]
    """Names of the objects, in order, as in the columns `NAME_FEATURE` of a table; where there are no such columns,
    `Jet0`, `Jet1`, ... are the entries of the lists `Jet_FEATURE`."""
    features: Annotated[list[str], Field(min_length=1)]
    """Names of the features of an object."""
    count: str | None = None
    """Column that says how many of the objects exist; none: those whose first feature is a number."""
    lists: str | None = None
    """Instead of columns `NAME_FEATURE`: columns `LISTS_FEATURE` that hold a list in each event, as ntuples in ROOT and
    Parquet do; the first objects are taken, in the order of the list."""

    @model_validator(mode="after")
    def _one_way(self) -> ObjectsConfig:
        if self.lists is not None and self.count is not None:
            raise refuse("no `count` beside `lists`, whose lengths say how many objects exist", given=self.count)
        for key, values in (("names", self.names), ("features", self.features)):
            if len(set(values)) < len(values):
                raise refuse("every name once", field=key, given=values)
        return self


class TrainDataConfig(Section):
    """Where events come from, and how they are divided."""

    example: str | None = None
    """A built-in problem: `signal_background` or `mass_regression`."""
    events: Annotated[int, Field(ge=100)] = 20_000
    """Events of the built-in problem, all folds together."""
    file: str | None = None
    """Instead of an example: a file of folds (`.h5`, `.hdf5`) or a table (`.parquet`, `.root`, `.npz`, `.csv`)."""
    tree: str | None = None
    """Tree of a ROOT file, where it has several."""
    inputs: list[str] = Field(default_factory=list)
    """Columns of a table that are continuous inputs."""
    categories: list[str] = Field(default_factory=list)
    """Columns of a table that are categories: whole numbers from 0."""
    objects: ObjectsConfig | None = None
    """Columns of a table that belong to objects."""
    targets: list[str] = Field(default_factory=list)
    """Columns of a table that are to be predicted."""
    weight: str | None = None
    """Column of a table that is the weight of an event; none: 1."""
    folds: Annotated[int, Field(ge=3, le=1000)] = 10
    """Number of equal parts that the events are dealt to; a file of folds has its own."""
    test_folds: Annotated[int, Field(ge=1)] = 1
    """How many of the last folds are kept from training and validation, for the figures of the result."""
    standardise: bool = True
    """Whether continuous inputs are brought to mean 0 and width 1, by scales that are part of the network."""
    balance: bool = False
    """Whether the weights of each class are scaled so that all classes count alike in training; figures keep the
    weights of the data."""

    @field_validator("example")
    @classmethod
    def _known_example(cls, name: str | None) -> str | None:
        if name is not None and name not in EXAMPLES:
            raise refuse(f"one of {', '.join(EXAMPLES)}", hint=did_you_mean(name, EXAMPLES))
        return name

    @model_validator(mode="after")
    def _one_source(self) -> TrainDataConfig:
        if (self.example is None) == (self.file is None):
            raise refuse("either `example` or `file`", given={"example": self.example, "file": self.file})
        columns = [*self.inputs, *self.categories, *self.targets]
        if self.example is not None and (columns or self.objects or self.weight or self.tree):
            raise refuse("no columns beside an `example`, which brings its own", given=columns or self.weight)
        if self.is_table and not self.targets:
            raise refuse("at least one column to predict from a table", field="targets", given=self.targets)
        if self.is_table and not (self.inputs or self.categories or self.objects):
            raise refuse("at least one column to predict by", field="inputs", given=self.inputs)
        if self.test_folds > self.folds - 2:
            raise refuse(
                f"at most {self.folds - 2}, so that two folds remain to train and validate",
                field="test_folds",
                given=self.test_folds,
            )
        return self

    @property
    def is_table(self) -> bool:
        """Whether the data are a table, not folds."""
        return self.file is not None and not self.file.lower().endswith((".h5", ".hdf5"))


class HeadConfig(ClassSpec):
    """From inputs to columns."""

    role: ClassVar[str] = "network head"

    class_: str = Field("CatEmbHead", alias="class")
    """Documented name, or your own class as `package.module:Class`."""


class BodyConfig(ClassSpec):
    """Hidden layers."""

    role: ClassVar[str] = "network body"

    class_: str = Field("FullyConnected", alias="class")
    """Documented name, or your own class as `package.module:Class`."""
    args: dict[str, Any] = Field(default_factory=lambda: {"depth": 3, "width": 64, "act": "swish"})
    """Keyword arguments of the class."""


class TailConfig(ClassSpec):
    """From columns to predictions."""

    role: ClassVar[str] = "network tail"

    class_: str = Field("ClassRegMulti", alias="class")
    """Documented name, or your own class as `package.module:Class`."""


class NetworkConfig(Section):
    """The network: head, body and tail."""

    objective: str
    """`classification` (yes or no), `multiclass` (exclusive classes) or `regression`."""
    outputs: Annotated[int, Field(ge=1)] = 1
    """Number of outputs; for `multiclass` that of the classes."""
    head: HeadConfig = HeadConfig.model_validate({})
    """From inputs to columns. Names and features of objects are filled in where the head takes them."""
    body: BodyConfig = BodyConfig.model_validate({})
    """Hidden layers."""
    tail: TailConfig = TailConfig.model_validate({})
    """From columns to predictions. For regression, mean and width of the targets are filled in unless it is told a
    range."""

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, name: str) -> str:
        if name not in OBJECTIVES:
            raise refuse(f"one of {', '.join(OBJECTIVES)}", hint=did_you_mean(name, OBJECTIVES))
        return name

    @model_validator(mode="after")
    def _classes(self) -> NetworkConfig:
        if self.objective == "multiclass" and self.outputs < 2:
            raise refuse("at least 2, the number of classes", field="outputs", given=self.outputs)
        return self


class NetLossConfig(ClassSpec):
    """What training makes small."""

    role: ClassVar[str] = "network loss"


class NetCallbackConfig(ClassSpec):
    """Acts at events of the training."""

    role: ClassVar[str] = "network callback"


class MetricConfig(ClassSpec):
    """A figure of the validation data, each epoch."""

    role: ClassVar[str] = "metric"


class NetOptimiserConfig(Section):
    """How weights move."""

    class_: str = Field("adam", alias="class")
    """`adam`, `adamw`, `sgd`, `nadam`, `radam` or `rmsprop`."""
    lr: Positive = 2e-3
    """Learning rate."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Further settings, such as `weight_decay`."""

    @model_validator(mode="before")
    @classmethod
    def _allow_bare_name(cls, data: Any) -> Any:
        return {"class": data} if isinstance(data, str) else data

    @field_validator("class_")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OPTIMISERS:
            raise refuse(f"one of {', '.join(OPTIMISERS)}", hint=did_you_mean(name, OPTIMISERS))
        return name


class TrainScheduleConfig(Section):
    """How long, and with how many models."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """Most epochs of a model."""
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Events to an update; over all processes where several train together."""
    patience: Annotated[int, Field(ge=1)] | None = 10
    """Epochs without a better validation after which training ends; none: never."""
    models: Annotated[int, Field(ge=1, le=1000)] = 1
    """Models to train, each validated on another fold; they predict together, weighted by the inverse of their
    validation loss."""
    keep_best: bool = True
    """Whether a model ends with the weights of its best epoch; else with its last."""
    amp: bool = False
    """Automatic mixed precision, on CUDA."""


class EvaluationConfig(Section):
    """Figures on the test folds."""

    importance: bool = True
    """Whether to measure what each feature is worth, by permutation."""
    repeats: Annotated[int, Field(ge=2, le=1000)] = 5
    """Permutations of each feature."""
    bootstrap: Annotated[int, Field(ge=20, le=100_000)] = 200
    """Resamplings of the events from which the uncertainty of a figure comes."""
    onnx: bool = False
    """Whether to export the models to ONNX, which needs the extra `onnx`."""


class TrainConfig(Section):
    """Everything that decides what a training does: the same configuration and versions give the same numbers."""

    format_version: Literal[1] = FORMAT_VERSION
    """Version of this layout."""
    kind: Literal["train"] = "train"
    """What it configures."""
    name: str = "unnamed"
    """Name of the problem, for titles."""
    description: str = ""
    """A sentence or two, for the report."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of all random streams."""
    device: str = "cpu"
    """`cpu`, `cuda`, `cuda:N`, `mps`, or `auto` for the first accelerator found."""
    smoke: bool = False
    """Whether the sizes were made tiny, for trying things out; the figures of such a run mean nothing."""
    search_path: list[str] = Field(default_factory=list)
    """Folders in which the modules of `package.module:Class` are looked up, besides installed packages; relative ones
    start at the configuration file, whose own folder is always searched."""
    data: TrainDataConfig
    """Where events come from."""
    network: NetworkConfig
    """Head, body and tail."""
    loss: NetLossConfig | None = None
    """What training makes small; none: what suits the objective."""
    optimiser: NetOptimiserConfig = NetOptimiserConfig.model_validate({})
    """How weights move."""
    callbacks: list[NetCallbackConfig] = Field(default_factory=list)
    """What acts at events of the training, in this order."""
    metrics: list[MetricConfig] = Field(default_factory=list)
    """Figures of the validation data; the first that is a main metric decides which epoch is best."""
    schedule: TrainScheduleConfig = TrainScheduleConfig()
    """How long, and with how many models."""
    checkpoints: CheckpointsConfig = CheckpointsConfig()
    """How often the state is saved."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """Figures on the test folds."""
    versions: dict[str, str] = Field(default_factory=dict)
    """Versions that wrote a resolved configuration; for information, not read."""

    _known_format = field_validator("format_version", mode="before")(check_format)
    _known_device = field_validator("device")(check_device)

    @property
    def needs_own_classes(self) -> bool:
        """Whether the configuration names a user's own class anywhere."""
        network = self.network
        specs: list[Any] = [network.head, network.body, network.tail, self.loss, *self.callbacks, *self.metrics]
        return any(spec is not None and spec.is_own for spec in specs)
