"""The few things of Belle II's software that the background generator touches, behind one object.

basf2 and ROOT are imported when a `Basf2` is made, never before. Everything that could be said about them without
running them is here, so that a stand-in of these classes can show what the adapter asks of them.
"""

from __future__ import annotations

import hashlib
import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from diffdet.core.errors import NotSupportedError
from diffdet.overlay.sensors import PXD

if TYPE_CHECKING:
    from diffdet.overlay.digits import Digits

__all__ = ["DIGITS", "Basf2", "Basf2MissingError", "has_basf2", "require_basf2", "seed_from_text"]

DIGITS: Final = "PXDDigits"
"""Name of the array of digits, without the extension of the overlay."""

_FILL: Final = """
#include <TClonesArray.h>
#include <pxd/dataobjects/PXDDigit.h>
#include <vxd/dataobjects/VxdID.h>
namespace diffdet {
  /** Put n digits into an array of PXDDigit that has been cleared. */
  void fill_pxd_digits(TClonesArray* array, unsigned long n, const unsigned short* id, const unsigned short* u,
                       const unsigned short* v, const unsigned short* charge) {
    for (unsigned long k = 0; k < n; ++k)
      new ((*array)[k]) Belle2::PXDDigit(Belle2::VxdID(id[k]), u[k], v[k], charge[k]);
  }
}
"""


class Basf2MissingError(NotSupportedError, ImportError):
    """Something can be done inside basf2 only, and basf2 is not here."""


def has_basf2() -> bool:
    """Whether basf2 can be imported."""
    try:
        importlib.import_module("basf2")
    except ImportError:
        return False
    return True


def require_basf2(what: str) -> ModuleType:
    """The module `basf2`.

    Args:
        what: What it is needed for.

    Raises:
        Basf2MissingError: If it cannot be imported.
    """
    try:
        return importlib.import_module("basf2")
    except ImportError as error:
        raise Basf2MissingError(
            f"{what} works inside Belle II's software only: basf2 cannot be imported here ({error}). Set a release up "
            "first (b2setup); everything else of the generator works without it"
        ) from error


def seed_from_text(text: str) -> int:
    """The seed that is derived from basf2's: the first 8 bytes of a SHA-512, big-endian, signed.

    Example:
        >>> seed_from_text("12345")
        3902246593939837825
    """
    return int.from_bytes(hashlib.sha512(text.encode("utf-8")).digest()[:8], "big", signed=True)


class Basf2:
    """basf2 and the part of ROOT that it brings.

    Raises:
        Basf2MissingError: If one of them cannot be imported.
    """

    def __init__(self) -> None:
        self.basf2: Any = require_basf2("the module PXDBackgroundGenerator as a part of a path")
        try:
            self.root: Any = importlib.import_module("ROOT")
        except ImportError as error:
            raise Basf2MissingError(f"basf2 is here, but ROOT cannot be imported: {error}") from error
        self.belle2: Any = self.root.Belle2
        self._fill: Any = None

    def info(self, text: str) -> None:
        """Log a line at the level INFO."""
        self.basf2.B2INFO(text)

    def seed(self) -> int:
        """A seed derived from basf2's own."""
        return seed_from_text(str(self.basf2.get_random_seed()))

    def payload(self, name: str) -> str:
        """Local file of a raw-file payload of the conditions database."""
        accessor = self.belle2.DBAccessorBase(self.belle2.DBStoreEntry.c_RawFile, name, True)
        return str(accessor.getFilename())

    def vxdids(self) -> tuple[Any, ...]:
        """Identifier objects of all sensors."""
        return tuple(self.belle2.VxdID(sensor.layer, sensor.ladder, sensor.sensor) for sensor in PXD)

    def extension(self) -> str:
        """What overlay adds to the names of arrays.

        Raises:
            NotSupportedError: If no BGOverlayInput comes before in the path.
        """
        info = self.belle2.PyStoreObj("BackgroundInfo", self.belle2.DataStore.c_Persistent)
        if not info.isValid():
            text = "the path must contain the module BGOverlayInput before PXDBackgroundGenerator"
            self.basf2.B2ERROR(text)
            raise NotSupportedError(
                f"{text}: it says what the arrays of the background are called. Are background files given, as in "
                "add_simulation(path, bkgfiles=...)?"
            )
        return str(info.getExtensionName())

    def register(self, extension: str) -> Any:
        """Register the array of digits of the background, of the event and not written to files.

        Returns:
            Its accessor.
        """
        # The durability decides which array is meant: overlay reads the one of the event. The flag that keeps an array
        # out of files has the same number as the durability of a whole job, and must not stand in its place.
        accessor = self.belle2.PyStoreArray(DIGITS, self.belle2.DataStore.c_Event)
        accessor.registerInDataStore(f"{DIGITS}{extension}", self.belle2.DataStore.c_DontWriteOut)
        return accessor

    def event_numbers(self) -> tuple[int, int, int]:
        """Experiment, run and event that are being processed.

        Raises:
            NotSupportedError: If nothing sets them.
        """
        meta = self.belle2.PyStoreObj("EventMetaData")
        if not meta.isValid():
            raise NotSupportedError("the path must set experiment, run and event, as EventInfoSetter does")
        return int(meta.getExperiment()), int(meta.getRun()), int(meta.getEvent())

    def replace(self, accessor: Any, vxdids: tuple[Any, ...], digits: Digits) -> None:
        """Put digits in the place of what an array holds.

        Args:
            accessor: From `register`.
            vxdids: From `vxdids`.
            digits: Of one event; sorted by sensor, v, u, which is what clustering wants.
        """
        if not accessor.isValid():
            accessor.create()
        array = accessor.getPtr()
        array.Clear()
        if self._fill is None:
            self._fill = self._compiled()
        if self._fill is False:
            self._fill_one_by_one(array, vxdids, digits)
            return
        import torch

        table = torch.tensor(PXD.vxdids, dtype=torch.int32)
        columns = (table[digits.sensor], digits.u, digits.v, digits.charge)
        self._fill(array, len(digits), *(column.to(torch.uint16).numpy() for column in columns))

    def _compiled(self) -> Any:
        """The function that fills an array at the speed of C++, or False where it cannot be compiled."""
        try:
            if not hasattr(self.root, "diffdet") and not self.root.gInterpreter.Declare(_FILL):
                raise RuntimeError("the interpreter refused it")
            return self.root.diffdet.fill_pxd_digits
        except Exception as error:
            # Whatever stands in the way (headers that are not installed, an interpreter that is switched off), the slow
            # way does the same.
            self.basf2.B2WARNING(f"PXD background: digits are filled one by one, because C++ is not available: {error}")
            return False

    def _fill_one_by_one(self, array: Any, vxdids: tuple[Any, ...], digits: Digits) -> None:
        columns = (digits.sensor, digits.u, digits.v, digits.charge)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for k, (sensor, u, v, charge) in enumerate(rows):
            # Items of the array cannot be assigned from Python; an element that stands there can take another's value.
            array.ConstructedAt(k).__assign__(self.belle2.PXDDigit(vxdids[sensor], u, v, charge))
