"""A stand-in for the few classes of basf2 and ROOT that the generator touches. It enforces what they document.

* Arrays live under a durability: those of the event are emptied between events, and cannot be seen under another one.
* Arrays can be registered while modules initialise, and only then.
* A number is taken for a durability, whatever it was meant for: the binding converts silently.
* Items of a TClonesArray cannot be assigned from Python.
* An array is filled, read and overlaid under its name with extension.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

C_EVENT, C_PERSISTENT = 0, 1
C_WRITE_OUT, C_DONT_WRITE_OUT = 0, 1


class VxdID:
    """Identifier of a sensor, of three numbers or of its 16 bits."""

    def __init__(self, *numbers: int) -> None:
        if len(numbers) not in (1, 3) or not all(type(number) is int for number in numbers):
            raise TypeError(f"none of the overloaded methods succeeded: VxdID({numbers})")
        layer, ladder, sensor = numbers if len(numbers) == 3 else (0, 0, 0)
        self.id = numbers[0] if len(numbers) == 1 else layer << 13 | ladder << 8 | sensor << 5


class PXDDigit:
    """A lit pixel."""

    def __init__(self, sensor: VxdID | None = None, u: int = 0, v: int = 0, charge: int = 0) -> None:
        assert all(type(number) is int and 0 <= number < 1 << 16 for number in (u, v, charge))
        self.sensor, self.u, self.v, self.charge = sensor, u, v, charge

    def __assign__(self, other: PXDDigit) -> None:
        self.__dict__.update(other.__dict__)

    def row(self) -> tuple[int, int, int, int]:
        return self.sensor.id, self.u, self.v, self.charge


class TClonesArray:
    """Objects of one class. `Clear` empties it; what is constructed takes the next place."""

    def __init__(self) -> None:
        self.items: list[PXDDigit] = []

    def Clear(self) -> None:
        self.items.clear()

    def ConstructedAt(self, k: int) -> PXDDigit:
        assert k == len(self.items), "elements are constructed one after the other"
        self.items.append(PXDDigit())
        return self.items[k]

    def GetEntriesFast(self) -> int:
        return len(self.items)

    def __setitem__(self, k: int, item: PXDDigit) -> None:
        raise RuntimeError("assignment into a TClonesArray from Python is not supported")


@dataclass
class Entry:
    """What is registered under a name."""

    value: object
    flags: int
    made: bool = False


@dataclass
class DataStoreState:
    """Everything that is registered, by durability and name."""

    entries: dict[int, dict[str, Entry]] = field(default_factory=lambda: {C_EVENT: {}, C_PERSISTENT: {}})
    initialising: bool = False

    def register(self, name: str, durability: int, value: object, flags: int) -> bool:
        if not self.initialising:
            raise RuntimeError(f"{name} can only be registered while modules initialise")
        known = self.entries[durability].get(name)
        if known is None:
            self.entries[durability][name] = Entry(value, flags)
        return True

    def clear_event(self) -> None:
        for entry in self.entries[C_EVENT].values():
            entry.made = False
            if isinstance(entry.value, TClonesArray):
                entry.value.Clear()


@dataclass
class Log:
    """Lines by level."""

    lines: list[tuple[str, str]] = field(default_factory=list)

    def at(self, level: str) -> list[str]:
        return [text for found, text in self.lines if found == level]


class Basf2Double:
    """One installation: modules `basf2`, `ROOT` and `simulation`, with what happened to them.

    Args:
        compiles: Whether ROOT's interpreter can compile C++.
        payloads: Local files of the conditions database by name.
        file_rows: Digits that BGOverlayInput reads for every event.
    """

    def __init__(self, *, compiles: bool = True, payloads=None, file_rows=((8480, 1, 2, 99),)) -> None:
        self.store, self.log = DataStoreState(), Log()
        self.payloads, self.file_rows = payloads or {}, file_rows
        self.tags: list[str] = []
        self.overlaid: list[list[tuple[int, int, int, int]]] = []
        self.written: set[str] = set()
        self.basf2 = self._basf2()
        self.root = self._root(compiles)
        self.simulation = self._simulation()

    @contextmanager
    def installed(self) -> Iterator[Basf2Double]:
        """Let imports find it, and import the package afresh."""
        ours = "diffdet.pxd"
        names = {"basf2": self.basf2, "ROOT": self.root, "simulation": self.simulation}
        before = {
            name: module
            for name, module in sys.modules.items()
            if name in names or name.partition(".pxd")[0] == "diffdet"
        }
        for name in [name for name in sys.modules if name == ours or name.startswith(f"{ours}.")]:
            del sys.modules[name]
        sys.modules.update(names)
        try:
            yield self
        finally:
            for name in [name for name in sys.modules if name in names or name == ours or name.startswith(f"{ours}.")]:
                del sys.modules[name]
            sys.modules.update(before)

    def _basf2(self) -> types.ModuleType:
        double, basf2 = self, types.ModuleType("basf2")

        class Module:
            def __init__(self) -> None:
                self._name, self.flags = type(self).__name__, 0

            def name(self) -> str:
                return self._name

            def set_property_flags(self, flags: int) -> None:
                self.flags = flags

            def initialize(self) -> None: ...

            def event(self) -> None: ...

        class Path:
            def __init__(self) -> None:
                self._modules: list[Module] = []

            def add_module(self, module: Module | str, **_: object) -> Module:
                if isinstance(module, str):
                    known = {"BGOverlayInput": double.overlay_input, "BGOverlayExecutor": double.overlay_executor}
                    made = known[module]() if module in known else Module()
                    made._name = module
                    module = made
                self._modules.append(module)
                return module

            def modules(self) -> list[Module]:
                return list(self._modules)

        def process(path: Path, events=((1, 2, 3),)) -> None:
            double.store.initialising = True
            for module in path.modules():
                module.initialize()
            double.store.initialising = False
            for numbers in events:
                double.store.clear_event()
                double.numbers = numbers
                for module in path.modules():
                    module.event()
                double.written |= {
                    name
                    for name, entry in double.store.entries[C_EVENT].items()
                    if entry.flags == C_WRITE_OUT and isinstance(entry.value, TClonesArray)
                }

        for level in ("INFO", "WARNING", "ERROR", "FATAL"):
            setattr(basf2, f"B2{level}", lambda text, level=level: double.log.lines.append((level, text)))
        basf2.Module, basf2.Path, basf2.create_path, basf2.process = Module, Path, Path, process
        basf2.ModulePropFlags = types.SimpleNamespace(PARALLELPROCESSINGCERTIFIED=4)
        basf2.get_random_seed = lambda: "12345"
        basf2.conditions = types.SimpleNamespace(append_globaltag=double.tags.append)
        return basf2

    def overlay_input(self):
        """The module that reads background files."""
        double = self

        class BGOverlayInput(self.basf2.Module):
            def initialize(self) -> None:
                double.store.register("PXDDigits_beamBG", C_EVENT, TClonesArray(), C_DONT_WRITE_OUT)
                double.store.register("BackgroundInfo", C_PERSISTENT, {"getExtensionName": "_beamBG"}, C_WRITE_OUT)
                double.store.entries[C_PERSISTENT]["BackgroundInfo"].made = True

            def event(self) -> None:
                entry = double.store.entries[C_EVENT]["PXDDigits_beamBG"]
                entry.made = True
                for k, (sensor, u, v, charge) in enumerate(double.file_rows):
                    entry.value.ConstructedAt(k).__assign__(PXDDigit(VxdID(sensor), u, v, charge))

        return BGOverlayInput()

    def overlay_executor(self):
        """The module that adds background to simulated digits: it looks for the array of the event."""
        double = self

        class BGOverlayExecutor(self.basf2.Module):
            def event(self) -> None:
                entry = double.store.entries[C_EVENT]["PXDDigits_beamBG"]
                double.overlaid.append([digit.row() for digit in entry.value.items])

        return BGOverlayExecutor()

    def _root(self, compiles: bool) -> types.ModuleType:
        double, root = self, types.ModuleType("ROOT")

        class PyStoreObj:
            def __init__(self, name: str, durability: int = C_EVENT) -> None:
                self._name, self._durability = name, int(durability)

            def isValid(self) -> bool:
                if self._name == "EventMetaData":
                    return True
                entry = double.store.entries[self._durability].get(self._name)
                return entry is not None and entry.made

            def __getattr__(self, method: str):
                if self._name == "EventMetaData":
                    place = ("getExperiment", "getRun", "getEvent").index(method)
                    return lambda: double.numbers[place]
                return lambda: double.store.entries[self._durability][self._name].value[method]

        class PyStoreArray:
            def __init__(self, name: str, durability: int = C_EVENT) -> None:
                self._name, self._durability = name, int(durability)

            def registerInDataStore(self, name: str, flags: int = C_WRITE_OUT) -> bool:
                self._name = name
                return double.store.register(name, self._durability, TClonesArray(), int(flags))

            def _entry(self) -> Entry:
                return double.store.entries[self._durability][self._name]

            def isValid(self) -> bool:
                return self._entry().made

            def create(self) -> bool:
                self._entry().made = True
                return True

            def getPtr(self) -> TClonesArray:
                assert self._entry().made, "a null pointer"
                return self._entry().value

        class DBAccessorBase:
            def __init__(self, kind: object, name: str, required: bool) -> None:
                assert kind == "raw file"
                if name not in double.payloads and required:
                    raise RuntimeError(f"payload {name} is required but was not found")
                self._name = name

            def getFilename(self) -> str:
                return str(double.payloads[self._name])

        def fill(array, n, ids, u, v, charge) -> None:
            for column in (ids, u, v, charge):
                assert column.dtype.name == "uint16"
                assert len(column) == n
                assert column.flags["C_CONTIGUOUS"]
            assert not array.items, "the array is to be cleared first"
            for k in range(n):
                digit = PXDDigit(VxdID(int(ids[k])), int(u[k]), int(v[k]), int(charge[k]))
                array.ConstructedAt(k).__assign__(digit)

        def declare(code: str) -> bool:
            assert "fill_pxd_digits" in code
            if not compiles:
                return False
            root.diffdet = types.SimpleNamespace(fill_pxd_digits=fill)
            return True

        root.gInterpreter = types.SimpleNamespace(Declare=declare)
        root.Belle2 = types.SimpleNamespace(
            DataStore=types.SimpleNamespace(
                c_Event=C_EVENT, c_Persistent=C_PERSISTENT, c_WriteOut=C_WRITE_OUT, c_DontWriteOut=C_DONT_WRITE_OUT
            ),
            DBStoreEntry=types.SimpleNamespace(c_RawFile="raw file"),
            **{one.__name__: one for one in (VxdID, PXDDigit, PyStoreObj, PyStoreArray, DBAccessorBase)},
        )
        return root

    def _simulation(self) -> types.ModuleType:
        simulation = types.ModuleType("simulation")

        def add_simulation(path, components=None, bkgfiles=None) -> None:
            """Add the standard simulation."""
            names = [module.name() for module in path.modules()]
            if bkgfiles:
                path.add_module("BGOverlayInput")
            for name in ("Gearbox", "Geometry", "FullSim"):
                if name not in names:
                    path.add_module(name)
            if bkgfiles:
                path.add_module("BGOverlayExecutor")
                path.add_module("PXDDigitSorter")

        simulation.add_simulation = add_simulation
        return simulation
