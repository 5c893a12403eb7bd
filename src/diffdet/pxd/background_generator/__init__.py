"""Background of the pixel detector, generated on the fly: the documented names of Belle II's software.

Works with and without basf2. Inside basf2, `PXDBackgroundGenerator` is a module for a path, and `inject_simulation`
puts it into the standard simulation. Elsewhere the same object gives digits directly, with `sample`.

Neither torch nor basf2 is needed to import this package and to construct the module; torch is loaded by `initialize`.
"""

from __future__ import annotations

import functools
import importlib
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from diffdet.core.errors import InputError
from diffdet.overlay.basf2 import Basf2, has_basf2, require_basf2
from diffdet.overlay.checkpoints import FOLDER_VARIABLE, payload_name
from diffdet.overlay.sensors import PXD
from diffdet.pxd.background_generator import models
from diffdet.pxd.background_generator._checks import (
    ArgumentTypeError,
    verify_checkpoint,
    verify_model,
    verify_number,
    verify_seed,
    verify_text,
)

if TYPE_CHECKING:
    from diffdet.overlay.conditions import Conditions
    from diffdet.overlay.digits import Digits
    from diffdet.pxd.background_generator._without_basf2 import Module
elif has_basf2():
    Module = importlib.import_module("basf2").Module
else:
    from diffdet.pxd.background_generator._without_basf2 import Module

__all__ = ["VXDID_ARGS", "ArgumentTypeError", "PXDBackgroundGenerator", "inject_simulation"]

VXDID_ARGS: Final = tuple((sensor.layer, sensor.ladder, sensor.sensor) for sensor in PXD)
"""Layer, ladder and sensor of the forty sensors, in the order of axis 0 of every image."""


class PXDBackgroundGenerator(Module):
    """Generates the digits of background that overlay adds to simulated events.

    Inside basf2 the module stands behind BGOverlayInput and replaces the digits that came from its files. Elsewhere,
    call `initialize` once and then `event` or `sample`.

    An event is made of the seed, the experiment, the run and its number alone: it is the same in any order, and in any
    worker of a parallel job. The numbers of events, and so the digits, do not depend on what else draws from torch.

    Args:
        model: Name of the model: ``"convnet"``, ``"resnet"``, ``"ieagan"``, or ``"clusters"``, whose weights come with
            the package.
        checkpoint: File with the weights, a bare state dict; variables of the environment are filled in. When None: a
            payload of a local folder, if one is named; the package, for ``"clusters"``; otherwise the conditions
            database, inside basf2.
        seed: From -2**63 to 2**63 - 1. When None it is derived from basf2's, and is 0 outside basf2.
        nintra: Threads inside an operation.
        ninter: Threads for operations beside each other; nothing here runs any, so it is only set where it still can
            be.
        globaltag: Global tag of the conditions database that holds the default weights; it is appended to the tags of
            the job when weights will come from there.
        compatible: Compute as the published module does, bit by bit: one sequence of random numbers for the whole job,
            all images in one pass, no threshold. Events then depend on those before them.
        precision: ``"float32"``, or ``"bf16"`` where speed matters more than a few per cent of charge.
        rounding: ``"basf2"`` cuts fractions of charges off, ``"nearest"`` rounds.
        class_order: Which label the weights of ``"ieagan"`` use for which sensor: ``"numeric"``, ``"lexicographic"``
            (as published weights), or the names of sensors in the order of their labels.
        device: Where networks compute, for example ``"cuda"``.
        conditions: What the detector delivers: absent sensors, dead pixels, closed gates, the threshold.
        payloads: Folder of payloads with a list of checksums; see `diffdet.overlay.checkpoints`. The folder that the
            variable ``DIFFDET_PXD_PAYLOADS`` names when None.

    Raises:
        TypeError: If an argument is of another type. Truth values are no integers here.
        ValueError: If a value is out of range, or the checkpoint is no file.

    Example:
        >>> module = PXDBackgroundGenerator(model="clusters", seed=1)
        >>> module.initialize()
        >>> digits = module.sample(2)
        >>> digits.n_events
        2
    """

    def __init__(
        self,
        model: str = "convnet",
        checkpoint: str | pathlib.Path | None = None,
        seed: int | None = None,
        nintra: int = 1,
        ninter: int = 1,
        globaltag: str = "PXDBackgroundGenerator",
        *,
        compatible: bool = False,
        precision: str = "float32",
        rounding: str = "basf2",
        class_order: str | Iterable[str] = "numeric",
        device: str = "cpu",
        conditions: Conditions | None = None,
        payloads: str | pathlib.Path | None = None,
    ) -> None:
        super().__init__()
        self.model = verify_model(model, models.MODELS)
        self.checkpoint = verify_checkpoint(checkpoint)
        self.seed = verify_seed(seed)
        self.nintra = verify_number("nintra", nintra)
        self.ninter = verify_number("ninter", ninter)
        self.globaltag = verify_text("globaltag", globaltag)
        self.compatible = compatible
        self.options: dict[str, Any] = {
            "compatible": compatible,
            "precision": precision,
            "rounding": rounding,
            "class_order": class_order,
            "device": device,
            "conditions": conditions,
        }
        self.payloads = str(payloads or os.environ.get(FOLDER_VARIABLE) or "") or None

        self._generate_func: Callable[[Any], Any] | None = None
        self._generator: Any = None
        self._vxdids: tuple[Any, ...] = ()
        self._pystorearray: Any = None
        self._source: Any = None
        self._sequence: Any = None
        self._basf2: Basf2 | None = None
        self._seed: int | None = None
        self._next_event = 0
        self.digits: Digits | None = None

        if has_basf2():
            basf2 = require_basf2("a module of a path")
            if self._asks_database:
                basf2.conditions.append_globaltag(self.globaltag)
            flags = getattr(basf2, "ModulePropFlags", None)
            if flags is not None and not compatible:
                self.set_property_flags(flags.PARALLELPROCESSINGCERTIFIED)

    @property
    def _asks_database(self) -> bool:
        return self.checkpoint is None and self.payloads is None and self.model != "clusters"

    def initialize(self) -> None:
        """Load torch, the model and its weights; inside basf2 also register the array of digits.

        Raises:
            ImportError: If torch is not installed.
            ModuleNotFoundError: If the model has no Python module.
            AttributeError: If that has no `Model` or no `generate`.
            CheckpointError: If the weights do not fit the model, or there are none.
            StorageError: If a file cannot be read.
            NotSupportedError: If inside basf2 no BGOverlayInput comes before.
        """
        try:
            import torch
        except ImportError as error:
            error.msg = "please install PyTorch: pip install torch"
            raise
        from diffdet.pxd.background_generator import _source

        self._set_threads_between(torch)
        self._basf2 = Basf2() if has_basf2() else None
        self._load(_source)
        self._seed = self._chosen_seed()
        if self.compatible:
            self._sequence = _source.Sequence(self._seed)
        if self._basf2 is not None:
            self._vxdids = self._basf2.vxdids()
            self._pystorearray = self._basf2.register(self._basf2.extension())

    def _set_threads_between(self, torch: Any) -> None:
        """Set the number of threads between operations, where this process has not used them yet."""
        if torch.get_num_interop_threads() != self.ninter:
            try:
                torch.set_num_interop_threads(self.ninter)
            except RuntimeError:
                # It can be set once and before any such work; a second module or path would fail here. Nothing of this
                # generator runs operations beside each other, so it does not matter.
                return

    def _load(self, source: Any) -> None:
        database = self._basf2 if self._asks_database else None
        fetch = None if database is None else lambda model: database.payload(payload_name(model))
        with source.threads(self.nintra):
            self._source, self._generator, self._generate_func = source.make_source(
                self.model, self.checkpoint, folder=self.payloads, fetch=fetch, options=self.options
            )

    def _chosen_seed(self) -> int:
        if self.seed is not None:
            return self.seed
        if self._basf2 is None:
            return 0
        seed = self._basf2.seed()
        self._basf2.info(f"PXD background generator seed initialized to {seed}")
        return seed

    def event(self) -> None:
        """Generate an event.

        Inside basf2: the one that is processed, whose array of background digits is replaced. Elsewhere: the next one,
        from number 0 of experiment 0 and run 0. Its digits are found in `digits`.

        Raises:
            InputError: If the module is not initialised.
        """
        if self._basf2 is None:
            self.digits = self.sample(1, start=self._next_event)
            self._next_event += 1
            return
        experiment, run, number = self._basf2.event_numbers()
        self.digits = self.sample(1, experiment=experiment, run=run, start=number)
        self._basf2.replace(self._pystorearray, self._vxdids, self.digits)

    def sample(self, n_events: int = 1, *, experiment: int = 0, run: int = 0, start: int = 0) -> Digits:
        """Digits of consecutive events.

        Args:
            n_events: How many.
            experiment: Number of the experiment.
            run: Number of the run.
            start: Number of the first event.

        Returns:
            Sorted by event, sensor, v and u.

        Raises:
            InputError: If the module is not initialised.
        """
        if self._source is None or self._seed is None:
            raise InputError("`initialize` must be called before events are generated; it has not been")
        from diffdet.pxd.background_generator import _source

        with _source.threads(self.nintra):
            if self._sequence is not None:
                return self._in_sequence(n_events, start)
            return self._source.sample(n_events, seed=self._seed, experiment=experiment, run=run, start=start)

    def _in_sequence(self, n_events: int, start: int) -> Digits:
        from diffdet.overlay.digits import Digits

        events = []
        for number in range(start, start + n_events):
            sensor, u, v, charge = self._source.draw(self._sequence.generator)
            events.append(Digits.from_columns(sensor * 0, sensor, u, v, charge, numbers=[number]))
        found = Digits.concatenate(events) if events else Digits.empty()
        return self._source.conditions.apply(found)

    def describe(self) -> dict[str, Any]:
        """What generates the events, with the hash of its weights and its seed; for files.

        Raises:
            InputError: If the module is not initialised.
        """
        if self._source is None:
            raise InputError("`initialize` must be called before `describe`; it has not been")
        return {**self._source.describe(), "seed": self._seed}


def inject_simulation(module: PXDBackgroundGenerator | None = None) -> Callable[..., None]:
    """A replacement of `simulation.add_simulation` that uses generated background.

    Args:
        module: The generator, or any module of basf2; it is added behind every BGOverlayInput. When None, the original
            function is returned.

    Returns:
        A function ``(path, *args, **kwargs)`` with the name and documentation of the original one. It warns where
        there is no BGOverlayInput, which means that no background files were given.

    Raises:
        TypeError: If `module` is no module of basf2.
        ImportError: Outside basf2.
    """
    if module is not None and not isinstance(module, Module):
        raise ArgumentTypeError(f"`module` must be None or a basf2.Module; got {module!r} of {type(module).__name__}")
    basf2 = require_basf2("inject_simulation")
    original: Callable[..., None] = importlib.import_module("simulation").add_simulation
    if module is None:
        return original

    @functools.wraps(original)
    def add_simulation(path: Any, *args: Any, **kwargs: Any) -> None:
        # The simulation is built on a path that already holds the user's modules, because it looks for some of them;
        # what it added is then moved over, one by one, because modules can only be added to the end of a path.
        whole = basf2.create_path()
        before = list(path.modules())
        for present in before:
            whole.add_module(present)
        original(whole, *args, **kwargs)
        found = False
        for added in list(whole.modules())[len(before) :]:
            path.add_module(added)
            if added.name() == "BGOverlayInput":
                path.add_module(module)
                found = True
        if not found:
            basf2.B2WARNING(
                "PXDBackgroundGenerator was not added to the path, because there is no BGOverlayInput: give background "
                "files, as in add_simulation(path, bkgfiles=get_background_files())"
            )

    return add_simulation
