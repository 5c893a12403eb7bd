"""From a description of a network to the network, its optimiser and its loss."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.optim import Optimizer

from diffdet.core.checks import check_in_range, did_you_mean
from diffdet.core.errors import InputError
from diffdet.core.random import Stream, key_seed
from diffdet.nn.losses import LOSSES, loss_of
from diffdet.nn.models import _builder_files
from diffdet.nn.models._building import BlockClass, call_block, read_model_args, seeded, state_of_model
from diffdet.nn.models.blocks.body import FullyConnected
from diffdet.nn.models.blocks.head import CatEmbHead
from diffdet.nn.models.blocks.tail import ClassRegMulti
from diffdet.nn.models.helpers import CatEmbedder, read_objective
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init
from diffdet.nn.models.layers.activations import LookupAct, lookup_act
from diffdet.nn.models.net import HeadBodyTail
from diffdet.nn.models.optimisers import make_optimiser, read_opt_args
from diffdet.nn.training.loading import load_state, read_state

__all__ = ["ModelBuilder"]

KIND = "nn model"
"""What files of models say they hold."""


class ModelBuilder:
    """Describes a network of head, body and tail, and builds it as often as it is asked to.

    Args:
        objective: ``"classification"`` (one or several yes-or-no outputs), ``"multiclass"`` (exclusive classes) or
            ``"regression"``, in any case.
        n_out: Number of outputs.
        cont_feats: Names of the continuous input features, in the order of their columns.
        model_args: Arguments of the blocks: ``{"head": {...}, "body": {...}, "tail": {...}}``.
        opt_args: The optimiser: ``opt`` (name or class), ``lr``, and what its class takes; see `read_opt_args`.
        cat_embedder: Sizes of categorical features, whose columns follow the continuous ones.
        cont_subsample_rate: Share of the continuous features that each network sees; all where None.
        guaranteed_feats: Features that every network sees; with subsampling only.
        loss: ``"auto"`` for what suits the objective, the name of a loss (`diffdet.nn.losses.LOSSES`), or a class,
            which is called without arguments when a fit begins.
        head: Class of the head, or a partial.
        body: Class of the body, or a partial.
        tail: Class of the tail, or a partial.
        lookup_init: (activation, fan_in, fan_out) -> function that fills a weight.
        lookup_act: Name of an activation -> layer.
        pretrain_file: File of a model whose weights the networks begin with.
        freeze_head: Whether the head starts as not trainable.
        freeze_body: Whether the body does.
        freeze_tail: Whether the tail does.
        seed: Root of initial weights and of the choice of features; where None, torch's default generator is used.

    Raises:
        InputError: If an argument cannot be used; unknown names come with the choices.
    """

    def __init__(
        self,
        objective: str,
        n_out: int,
        cont_feats: Sequence[str] | None = None,
        model_args: Mapping[str, Mapping[str, Any]] | None = None,
        opt_args: Mapping[str, Any] | None = None,
        cat_embedder: CatEmbedder | None = None,
        cont_subsample_rate: float | None = None,
        guaranteed_feats: Sequence[str] | None = None,
        loss: str | Callable[[], Any] = "auto",
        head: BlockClass = CatEmbHead,
        body: BlockClass = FullyConnected,
        tail: BlockClass = ClassRegMulti,
        lookup_init: LookupInit = lookup_normal_init,
        lookup_act: LookupAct = lookup_act,
        pretrain_file: str | Path | None = None,
        freeze_head: bool = False,
        freeze_body: bool = False,
        freeze_tail: bool = False,
        *,
        seed: int | None = None,
    ) -> None:
        read_objective(objective)
        if isinstance(n_out, bool) or not hasattr(n_out, "__index__") or n_out < 1:
            raise InputError(f"`n_out` must be a whole number of at least 1; got {n_out!r}")
        self.objective = objective.lower()
        self.n_out = int(n_out)
        self.cont_feats = list(cont_feats or ())
        self.model_args = read_model_args(model_args)
        self.opt_args = read_opt_args(opt_args)
        self.cat_embedder = cat_embedder
        self.cont_subsample_rate = cont_subsample_rate
        self.guaranteed_feats = list(guaranteed_feats or ())
        self.loss = self._read_loss(loss)
        self.head, self.body, self.tail = head, body, tail
        self.lookup_init = lookup_init
        self.lookup_act = lookup_act
        self.pretrain_file = None if pretrain_file is None else Path(pretrain_file)
        self.freeze_head, self.freeze_body, self.freeze_tail = freeze_head, freeze_body, freeze_tail
        self.seed = seed
        self._check_features()

    def _read_loss(self, loss: str | Callable[[], Any]) -> Callable[[], Any]:
        if not isinstance(loss, str):
            if not callable(loss) or isinstance(loss, nn.Module):
                raise InputError(
                    f"`loss` must be a class, or a partial, that a fit calls without arguments; got {loss!r}"
                )
            return loss
        if loss.lower() == "auto":
            return loss_of(self.objective, self.n_out)
        if loss.lower() not in LOSSES:
            names = ["auto", *LOSSES]
            raise InputError(
                f"`loss` must be one of {', '.join(map(repr, names))}, or a class; got {loss!r}"
                f"{did_you_mean(loss, names)}"
            )
        return LOSSES[loss.lower()]

    def _check_features(self) -> None:
        names = self.cont_feats
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InputError(f"`cont_feats` must name every feature once; got {twice} more than once")
        if self.cont_subsample_rate is None:
            return
        check_in_range("cont_subsample_rate", self.cont_subsample_rate, 0.0, 1.0, low_open=True)
        for name in self.guaranteed_feats:
            if name not in names:
                raise InputError(
                    f"`guaranteed_feats` must be among `cont_feats`; got {name!r}{did_you_mean(name, names)}"
                )
        if len(self.guaranteed_feats) > self._n_kept():
            raise InputError(
                f"`guaranteed_feats` must be at most the {self._n_kept()} features that a `cont_subsample_rate` of "
                f"{self.cont_subsample_rate} keeps; got {len(self.guaranteed_feats)}"
            )

    @classmethod
    def from_model_builder(
        cls,
        model_builder: ModelBuilder | str | Path,
        pretrain_file: str | Path | None = None,
        freeze_head: bool = False,
        freeze_body: bool = False,
        freeze_tail: bool = False,
        loss: str | Callable[[], Any] | None = None,
        opt_args: Mapping[str, Any] | None = None,
    ) -> Self:
        """A builder of the same architecture, for further training.

        Loss and optimiser are those of the other builder unless given (the original fell back to its defaults).

        Args:
            model_builder: Another builder, or a file that `save` wrote.
            pretrain_file: File of a model whose weights to begin with.
            freeze_head: Whether the head starts as not trainable.
            freeze_body: Whether the body does.
            freeze_tail: Whether the tail does.
            loss: Another loss.
            opt_args: Another optimiser.
        """
        other = cls.load(model_builder) if isinstance(model_builder, str | Path) else model_builder
        return cls(
            other.objective,
            other.n_out,
            other.cont_feats,
            other.model_args,
            other.opt_args if opt_args is None else opt_args,
            other.cat_embedder,
            other.cont_subsample_rate,
            other.guaranteed_feats,
            other.loss if loss is None else loss,
            other.head,
            other.body,
            other.tail,
            other.lookup_init,
            other.lookup_act,
            pretrain_file,
            freeze_head,
            freeze_body,
            freeze_tail,
            seed=other.seed,
        )

    # ------------------------------------------------------------------------------------------------------------ build
    def get_out_size(self) -> int:
        """Number of outputs of the networks."""
        return self.n_out

    def _n_kept(self) -> int:
        rate = 1.0 if self.cont_subsample_rate is None else self.cont_subsample_rate
        # A rate of 0.1 is meant as a tenth: of 30 features 3, not the 4 that its rounding error would give.
        return math.ceil(rate * len(self.cont_feats) - 1e-9)

    def sample_features(self, seed: int | None = None) -> tuple[list[str], list[int] | None]:
        """Choose the features of a network.

        Args:
            seed: Root of the choice; the builder's where None, and torch's default generator where that is None, too.

        Returns:
            Names of the continuous features, in their order, and the columns that they and the categorical features
            have in the data; None for the columns where the network sees all.
        """
        if self.cont_subsample_rate is None:
            return list(self.cont_feats), None
        seed = self.seed if seed is None else seed
        stream = Stream.from_torch() if seed is None else Stream(seed, "features")
        free = [k for k, name in enumerate(self.cont_feats) if name not in self.guaranteed_feats]
        order = torch.randperm(len(free), generator=stream.generator()).tolist()
        n_free = self._n_kept() - len(self.guaranteed_feats)
        kept = [self.cont_feats.index(name) for name in self.guaranteed_feats] + [free[k] for k in order[:n_free]]
        kept.sort()
        n_cat = 0 if self.cat_embedder is None else self.cat_embedder.n_cat_in
        n_cont = len(self.cont_feats)
        return [self.cont_feats[k] for k in kept], [*kept, *range(n_cont, n_cont + n_cat)]

    def build_head(self, cont_feats: Sequence[str] | None = None) -> Any:
        """A head.

        Args:
            cont_feats: Continuous features that it sees; all where None.
        """
        return call_block(
            self.head,
            "head",
            self.model_args["head"],
            {"lookup_act": self.lookup_act},
            cont_feats=list(self.cont_feats if cont_feats is None else cont_feats),
            cat_embedder=self.cat_embedder,
            lookup_init=self.lookup_init,
            freeze=self.freeze_head,
        )

    def build_body(self, n_in: int, feat_map: Mapping[str, Sequence[int]]) -> Any:
        """A body.

        Args:
            n_in: Width of the head's output.
            feat_map: The head's.
        """
        return call_block(
            self.body,
            "body",
            self.model_args["body"],
            {},
            n_in=n_in,
            feat_map=feat_map,
            lookup_init=self.lookup_init,
            lookup_act=self.lookup_act,
            freeze=self.freeze_body,
        )

    def build_tail(self, n_in: int) -> Any:
        """A tail.

        Args:
            n_in: Width of the body's output.
        """
        return call_block(
            self.tail,
            "tail",
            self.model_args["tail"],
            {},
            n_in=n_in,
            n_out=self.n_out,
            objective=self.objective,
            lookup_init=self.lookup_init,
            freeze=self.freeze_tail,
        )

    def build_net(self, cont_feats: Sequence[str] | None = None) -> HeadBodyTail:
        """A network with initial weights from torch's default generator.

        Args:
            cont_feats: Continuous features that it sees; all where None.
        """
        head = self.build_head(cont_feats)
        body = self.build_body(head.get_out_size(), head.feat_map)
        return HeadBodyTail(head, body, self.build_tail(body.get_out_size()))

    def get_model(
        self, *, seed: int | None = None, device: torch.device | str | None = None
    ) -> tuple[HeadBodyTail, Optimizer, Callable[[], Any], list[int] | None]:
        """A network and what it is trained with.

        Args:
            seed: Root of initial weights and choice of features; the builder's where None.
            device: Where to put it; torch's default device where None.

        Returns:
            Network, optimiser, loss (to be called without arguments), and the columns of the data that the network sees
            (None for all).

        Raises:
            InputError: If a block refuses its arguments.
            CheckpointError: If the weights of `pretrain_file` do not fit; every key is listed.
        """
        seed = self.seed if seed is None else seed
        cont_feats, input_mask = self.sample_features(seed)
        with seeded(None if seed is None else key_seed(seed, "weights")):
            net = self.build_net(cont_feats)
        if input_mask is not None and getattr(net.part("head"), "n_matrix_in", 0):
            self._check_objects(net, cont_feats)
        if self.pretrain_file is not None:
            load_state(net, state_of_model(read_state(self.pretrain_file, KIND)), str(self.pretrain_file))
        if device is not None:
            net.to(device)
        return net, make_optimiser(net.parameters(), self.opt_args), self.loss, input_mask

    def _check_objects(self, net: HeadBodyTail, cont_feats: Sequence[str]) -> None:
        """Refuse a choice that leaves out features of objects: matrices come whole."""
        vecs: Sequence[str] = getattr(net.part("head"), "vecs", ())
        lost = [n for n in self.cont_feats if n not in cont_feats and any(n.startswith(f"{vec}_") for vec in vecs)]
        if lost:
            raise InputError(
                f"`guaranteed_feats` must hold all features of objects when others are subsampled; {lost} were left out"
            )

    # ------------------------------------------------------------------------------------------------------------ files
    def save(self, name: str | Path) -> None:
        """Save the description as JSON: names and numbers, never code.

        Args:
            name: Name of the file.

        Raises:
            InputError: If an argument cannot be written as names and numbers.
            StorageError: If it cannot be written.
        """
        _builder_files.save(self, name)

    @classmethod
    def load(cls, name: str | Path, classes: Mapping[str, Any] | None = None) -> Self:
        """A builder from a file that `save` wrote; nothing in it is executed.

        Args:
            name: Name of the file.
            classes: Classes and functions of your own that the description names, by name. Those of the library need
                not be given.

        Raises:
            StorageError: If the file cannot be read.
            CheckpointError: If it is no such file, or names a class that is not known.
        """
        return cls(**_builder_files.load(name, classes or {}))
