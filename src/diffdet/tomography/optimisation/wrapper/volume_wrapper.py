"""Volume wrappers: which optimiser looks after which parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self

from torch.optim import Optimizer

from diffdet.core.errors import InputError
from diffdet.tomography.core import PartialOpt
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import AbsVolumeInferrer, PanelX0Inferrer
from diffdet.tomography.muon.generation import AbsMuonGenerator
from diffdet.tomography.optimisation.fit_params import FitParams
from diffdet.tomography.optimisation.parameters import family
from diffdet.tomography.optimisation.step import LossFunction
from diffdet.tomography.optimisation.wrapper.base import AbsVolumeWrapper
from diffdet.tomography.volume.volume import Volume

__all__ = ["AbsVolumeWrapper", "ArbVolumeWrapper", "FitParams", "HeatMapVolumeWrapper", "PanelVolumeWrapper"]


class PanelVolumeWrapper(AbsVolumeWrapper):
    """Wrapper for volumes with panels: one optimiser each for positions in xy and z, spans, and the budget.

    Args:
        volume: Volume with the detectors.
        xy_pos_opt: Optimiser of the panels' xy; like the others it waits for its parameters.
        z_pos_opt: Optimiser of the panels' z.
        xy_span_opt: Optimiser of the panels' spans.
        budget_opt: Optimiser of how the budget is shared, for a volume with one.
        loss_func: See `AbsVolumeWrapper`, as for all below.
        partial_scatter_inferrer: Likewise.
        partial_volume_inferrer: Likewise.
        mu_generator: Likewise.
        seed: Likewise.

    Raises:
        InputError: If a panel lacks such parameters, or a budget is to be optimised of a volume without one.
    """

    def __init__(
        self,
        volume: Volume,
        *,
        xy_pos_opt: PartialOpt,
        z_pos_opt: PartialOpt,
        xy_span_opt: PartialOpt,
        budget_opt: PartialOpt | None = None,
        loss_func: LossFunction | None = None,
        partial_scatter_inferrer: Callable[..., ScatterBatch] = ScatterBatch,
        partial_volume_inferrer: Callable[..., AbsVolumeInferrer] = PanelX0Inferrer,
        mu_generator: AbsMuonGenerator | None = None,
        seed: int | None = None,
    ) -> None:
        partial_opts = {"xy_pos_opt": xy_pos_opt, "z_pos_opt": z_pos_opt, "xy_span_opt": xy_span_opt}
        if budget_opt is not None:
            partial_opts["budget_opt"] = budget_opt
        super().__init__(
            volume,
            partial_opts=partial_opts,
            loss_func=loss_func,
            partial_scatter_inferrer=partial_scatter_inferrer,
            partial_volume_inferrer=partial_volume_inferrer,
            mu_generator=mu_generator,
            seed=seed,
        )

    def _build_opt(self, **kwargs: PartialOpt) -> None:
        for name, partial_opt in kwargs.items():
            if name == "budget_opt":
                weights = getattr(self.volume, "budget_weights", None)
                if weights is None:
                    raise InputError("`budget_opt` needs a volume with a budget; this one has none")
                self.opts[name] = partial_opt(iter([weights]))
            else:
                self.opts[name] = partial_opt(iter(family(self.volume, name.removesuffix("_opt"))))

    @classmethod
    def from_save(
        cls,
        name: str | Path,
        *,
        volume: Volume,
        xy_pos_opt: PartialOpt,
        z_pos_opt: PartialOpt,
        xy_span_opt: PartialOpt,
        budget_opt: PartialOpt | None = None,
        loss_func: LossFunction | None,
        partial_scatter_inferrer: Callable[..., ScatterBatch] = ScatterBatch,
        partial_volume_inferrer: Callable[..., AbsVolumeInferrer] = PanelX0Inferrer,
        mu_generator: AbsMuonGenerator | None = None,
        seed: int | None = None,
    ) -> Self:
        """A wrapper with the detectors and optimisers of a saved one.

        Args:
            name: File that `save` wrote.
            volume: Volume to load the detectors into, built as the saved one.
            xy_pos_opt: As for the class.
            z_pos_opt: Likewise.
            xy_span_opt: Likewise.
            budget_opt: Likewise.
            loss_func: Likewise.
            partial_scatter_inferrer: Likewise.
            partial_volume_inferrer: Likewise.
            mu_generator: Likewise.
            seed: Likewise.

        Raises:
            StorageError: As `load`.
            CheckpointError: As `load`.
        """
        wrapper = cls(
            volume,
            xy_pos_opt=xy_pos_opt,
            z_pos_opt=z_pos_opt,
            xy_span_opt=xy_span_opt,
            budget_opt=budget_opt,
            loss_func=loss_func,
            partial_scatter_inferrer=partial_scatter_inferrer,
            partial_volume_inferrer=partial_volume_inferrer,
            mu_generator=mu_generator,
            seed=seed,
        )
        wrapper.load(name)
        return wrapper


class HeatMapVolumeWrapper(AbsVolumeWrapper):
    """Wrapper for volumes with heat-map detectors: one optimiser each for means, norms, widths, and heights.

    It needs panels that declare the parameter families ``mu``, ``norm``, ``sig`` and ``z_pos``.

    Args:
        volume: Volume with the detectors.
        mu_opt: Optimiser of the Gaussians' centres; like the others it waits for its parameters.
        norm_opt: Optimiser of the Gaussians' norms.
        sig_opt: Optimiser of the Gaussians' widths.
        z_pos_opt: Optimiser of the detectors' z.
        loss_func: See `AbsVolumeWrapper`, as for all below.
        partial_scatter_inferrer: Likewise.
        partial_volume_inferrer: Likewise.
        mu_generator: Likewise.
        seed: Likewise.

    Raises:
        InputError: If a detector lacks such parameters.
    """

    def __init__(
        self,
        volume: Volume,
        *,
        mu_opt: PartialOpt,
        norm_opt: PartialOpt,
        sig_opt: PartialOpt,
        z_pos_opt: PartialOpt,
        loss_func: LossFunction | None,
        partial_scatter_inferrer: Callable[..., ScatterBatch] = ScatterBatch,
        partial_volume_inferrer: Callable[..., AbsVolumeInferrer] = PanelX0Inferrer,
        mu_generator: AbsMuonGenerator | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            volume,
            partial_opts={"mu_opt": mu_opt, "norm_opt": norm_opt, "sig_opt": sig_opt, "z_pos_opt": z_pos_opt},
            loss_func=loss_func,
            partial_scatter_inferrer=partial_scatter_inferrer,
            partial_volume_inferrer=partial_volume_inferrer,
            mu_generator=mu_generator,
            seed=seed,
        )

    def _build_opt(self, **kwargs: PartialOpt) -> None:
        for name, partial_opt in kwargs.items():
            self.opts[name] = partial_opt(iter(family(self.volume, name.removesuffix("_opt"))))

    @classmethod
    def from_save(
        cls,
        name: str | Path,
        *,
        volume: Volume,
        mu_opt: PartialOpt,
        norm_opt: PartialOpt,
        sig_opt: PartialOpt,
        z_pos_opt: PartialOpt,
        loss_func: LossFunction | None,
        partial_scatter_inferrer: Callable[..., ScatterBatch] = ScatterBatch,
        partial_volume_inferrer: Callable[..., AbsVolumeInferrer] = PanelX0Inferrer,
        mu_generator: AbsMuonGenerator | None = None,
        seed: int | None = None,
    ) -> Self:
        """A wrapper with the detectors and optimisers of a saved one.

        Args:
            name: File that `save` wrote.
            volume: Volume to load the detectors into, built as the saved one.
            mu_opt: As for the class.
            norm_opt: Likewise.
            sig_opt: Likewise.
            z_pos_opt: Likewise.
            loss_func: Likewise.
            partial_scatter_inferrer: Likewise.
            partial_volume_inferrer: Likewise.
            mu_generator: Likewise.
            seed: Likewise.

        Raises:
            StorageError: As `load`.
            CheckpointError: As `load`.
        """
        wrapper = cls(
            volume,
            mu_opt=mu_opt,
            norm_opt=norm_opt,
            sig_opt=sig_opt,
            z_pos_opt=z_pos_opt,
            loss_func=loss_func,
            partial_scatter_inferrer=partial_scatter_inferrer,
            partial_volume_inferrer=partial_volume_inferrer,
            mu_generator=mu_generator,
            seed=seed,
        )
        wrapper.load(name)
        return wrapper


class ArbVolumeWrapper(AbsVolumeWrapper):
    """Wrapper whose optimisers the caller has built, for whatever parameters should be optimised.

    Args:
        volume: Volume with the detectors.
        opts: Optimisers by any names.
        loss_func: See `AbsVolumeWrapper`, as for all below.
        partial_scatter_inferrer: Likewise.
        partial_volume_inferrer: Likewise.
        mu_generator: Likewise.
        seed: Likewise.
    """

    def __init__(
        self,
        volume: Volume,
        *,
        opts: dict[str, Optimizer],
        loss_func: LossFunction | None = None,
        partial_scatter_inferrer: Callable[..., ScatterBatch] = ScatterBatch,
        partial_volume_inferrer: Callable[..., AbsVolumeInferrer] = PanelX0Inferrer,
        mu_generator: AbsMuonGenerator | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(
            volume,
            partial_opts={},
            loss_func=loss_func,
            partial_scatter_inferrer=partial_scatter_inferrer,
            partial_volume_inferrer=partial_volume_inferrer,
            mu_generator=mu_generator,
            seed=seed,
        )
        self.opts = opts

    def _build_opt(self, **kwargs: PartialOpt) -> None:
        """Nothing to build: the caller has."""

    @classmethod
    def from_save(
        cls,
        name: str | Path,
        *,
        volume: Volume,
        opts: dict[str, Optimizer],
        loss_func: LossFunction | None,
        partial_scatter_inferrer: Callable[..., ScatterBatch] = ScatterBatch,
        partial_volume_inferrer: Callable[..., AbsVolumeInferrer] = PanelX0Inferrer,
        mu_generator: AbsMuonGenerator | None = None,
        seed: int | None = None,
    ) -> Self:
        """A wrapper with the detectors and optimisers of a saved one.

        Args:
            name: File that `save` wrote.
            volume: Volume to load the detectors into, built as the saved one.
            opts: As for the class.
            loss_func: Likewise.
            partial_scatter_inferrer: Likewise.
            partial_volume_inferrer: Likewise.
            mu_generator: Likewise.
            seed: Likewise.

        Raises:
            StorageError: As `load`.
            CheckpointError: As `load`.
        """
        wrapper = cls(
            volume,
            opts=opts,
            loss_func=loss_func,
            partial_scatter_inferrer=partial_scatter_inferrer,
            partial_volume_inferrer=partial_volume_inferrer,
            mu_generator=mu_generator,
            seed=seed,
        )
        wrapper.load(name)
        return wrapper
