"""What stands in for `basf2.Module` where basf2 is not installed."""

from __future__ import annotations


class Module:
    """The part of a module of basf2 that the generator uses; outside basf2 no path ever calls it."""

    def __init__(self) -> None:
        self._name = type(self).__name__

    def name(self) -> str:
        """Name of the module."""
        return self._name

    def set_name(self, name: str) -> None:
        """Give the module another name."""
        self._name = name

    def set_property_flags(self, flags: int) -> None:
        """Say what the module can do; nobody asks outside basf2."""

    def initialize(self) -> None:
        """Called before the first event."""

    def event(self) -> None:
        """Called for every event."""
