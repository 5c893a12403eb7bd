"""The interface of tasks."""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffdet.runs.config import RunConfig
    from diffdet.tomography.volume.volume import Volume

Progress = Callable[[int, int | None, str], None]
"""Is told ``(done, total, text)``."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        initial: Figures of the detector that the run started from, each with its standard error under ``NAME_se``
            where it has one.
        final: The same figures of the optimised detector.
        baselines: The same figures of detectors to compare with, by name.
        text: A sentence that says on what the figures were measured.
        notes: More sentences, for below the table.
        predictions: What the report draws: of kind ``"scalar"`` (`quantity`, `unit`, and for each of `detectors` the
            lists `target` and `prediction`) or ``"x0"`` (`edges`, and cubes `truth`, `initial`, `final`); None for no
            drawing.
        n_muons: Muons simulated.
        details: Anything else worth keeping: numbers of volumes and muons, fitted constants.
    """

    initial: dict[str, float]
    final: dict[str, float]
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    text: str = ""
    notes: list[str] = field(default_factory=list)
    predictions: dict[str, Any] | None = None
    n_muons: int = 0
    details: dict[str, Any] = field(default_factory=dict)


class AbsTask(metaclass=ABCMeta):
    """How a detector is evaluated. Its constructor takes the `args` of the configuration's `task`.

    To add a task, inherit, write `evaluate`, and name the class in a configuration as ``package.module:Class``.
    """

    @abstractmethod
    def evaluate(self, config: RunConfig, initial: Volume, final: Volume, progress: Progress) -> Evaluation:
        """Compare detectors on volumes that the optimisation has never seen.

        Args:
            config: The configuration of the run.
            initial: A volume with the detector that the run started from.
            final: A volume with the optimised detector.
            progress: Told how far the evaluation is.

        Returns:
            Figures and what to draw. The same configuration and detectors give the same ones.
        """

    def compare_models(self, config: RunConfig, smooth: Volume, physical: Volume, progress: Progress) -> Evaluation:
        """Evaluate one detector with its smooth and with its physical model; a few seconds should do.

        Args:
            config: The configuration of the run.
            smooth: A volume with the detector, smooth also outside training.
            physical: A volume with the same detector, physical outside training.
            progress: Told how far it is.

        Returns:
            As `evaluate`, with the smooth model in the place of the initial detector.
        """
        return self.evaluate(config, smooth, physical, progress)

    def shrink(self) -> None:  # noqa: B027
        """Make the evaluation tiny, for `--smoke`."""
