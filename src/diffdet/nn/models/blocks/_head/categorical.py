"""The head for columnar data: continuous columns as they are, categorical ones embedded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffdet.core import storage
from diffdet.core.checks import check_in_range
from diffdet.core.errors import CheckpointError, InputError, StorageError
from diffdet.nn.models.blocks._head.base import AbsHead, HeadInput, check_flat
from diffdet.nn.models.initialisations import LookupInit, lookup_normal_init

if TYPE_CHECKING:
    from diffdet.nn.models.helpers import CatEmbedder
    from diffdet.nn.plotting.plot_settings import PlotSettings


class CatEmbHead(AbsHead):
    """Continuous columns, followed by learned vectors for the codes of categorical columns.

    Input is flat, (B, n_cont + n_cat): continuous columns first, then one column a categorical feature that holds its
    code 0, 1, ... as a number. Output is the continuous columns, then the embeddings in the order of the embedder.
    There is no dense layer.

    Args:
        cont_feats: Names of the continuous columns.
        do_cont: Dropout rate of continuous columns.
        do_cat: Dropout rate of embeddings. (The older package dropped out the wrong tensor: no effect.)
        cat_embedder: Names, cardinalities and embedding widths of the categorical columns; None when there are none.
            If it names a folder to load from, embeddings saved there are loaded by name.
        lookup_init: Kept for blocks that derive from this one; embeddings start from a normal distribution.
        freeze: Whether all parameters start as not trainable.

    Attributes:
        embeds: One embedding a categorical feature.

    Raises:
        InputError: If there is no feature at all, a name stands twice, or a rate is outside [0, 1).
        StorageError: If a saved embedding cannot be read.
        CheckpointError: If a saved embedding has another shape.
    """

    def __init__(
        self,
        cont_feats: Sequence[str],
        do_cont: float = 0,
        do_cat: float = 0,
        cat_embedder: CatEmbedder | None = None,
        lookup_init: LookupInit = lookup_normal_init,
        freeze: bool = False,
    ) -> None:
        super().__init__(cont_feats, cat_embedder, lookup_init=lookup_init, freeze=freeze)
        if not self.n_cont_in + self.n_cat_in:
            raise InputError("`cont_feats` and `cat_embedder` hold no feature: the head would have no output")
        self.do_cont, self.do_cat = do_cont or 0, do_cat or 0
        check_in_range("do_cont", self.do_cont, 0, 1, high_open=True)
        check_in_range("do_cat", self.do_cat, 0, 1, high_open=True)
        self._sizes = [] if cat_embedder is None else [(int(n), int(width)) for _, n, width in cat_embedder]
        self.embeds = nn.ModuleList(nn.Embedding(n, width) for n, width in self._sizes)
        self.do_cont_layer = nn.Dropout(self.do_cont)
        self.do_cat_layer = nn.Dropout(self.do_cat)
        if cat_embedder is not None and cat_embedder.emb_load_path is not None:
            self.load_embeds(cat_embedder.emb_load_path)
        self._map_outputs()

    def _map_outputs(self) -> None:
        self.feat_map = {name: [k] for k, name in enumerate(self.cont_feats)}
        start = self.n_cont_in
        for name, (_, width) in zip(self.cat_feats, self._sizes, strict=True):
            self.feat_map[name] = list(range(start, start + width))
            start += width

    def get_out_size(self) -> int:
        """Width of the output."""
        return self.n_cont_in + sum(width for _, width in self._sizes)

    def forward(self, x: HeadInput, mask: Tensor | None = None) -> Tensor:
        """Embed the categorical columns.

        Args:
            x: (B, n_cont + n_cat); of a tuple (flat, matrix) the flat part.
            mask: Must be None: flat columns belong to no objects.

        Returns:
            (B, width).

        Raises:
            InputError: If there is a mask, or a code is no number or outside its range; the message names the feature.
            ShapeError: If the number of columns does not fit.
        """
        if mask is not None:
            raise InputError("`mask` must be None: the columns of a CatEmbHead belong to no objects")
        flat = x[0] if isinstance(x, tuple | list) else x
        check_flat(flat, [*self.cont_feats, *self.cat_feats])
        if not self.n_cat_in:
            return self.do_cont_layer(flat)
        codes = flat[:, self.n_cont_in :].t().contiguous()
        if not torch.compiler.is_compiling() and codes.numel() and not codes.is_meta:
            self._check_codes(codes)
        embedded = [layer(code) for layer, code in zip(self.embeds, codes.to(torch.int64).unbind(), strict=True)]
        if self.do_cat:  # one draw for all
            embedded = [self.do_cat_layer(torch.cat(embedded, 1))]
        return torch.cat([self.do_cont_layer(flat[:, : self.n_cont_in]), *embedded], 1)

    def _check_codes(self, codes: Tensor) -> None:
        """Refuse codes (feature, B) that no embedding has, by name. They are truncated towards zero: -0.5 is 0."""
        lowest, highest = codes.amin(1), codes.amax(1)  # NaN goes through, and is in no range
        wrong = [
            k for k, (low, high) in enumerate(zip(lowest.tolist(), highest.tolist(), strict=True))
            if not (low > -1 and high < self._sizes[k][0])
        ]  # fmt: skip
        if wrong:
            feature = codes[wrong[0]]
            bad = ~((feature > -1) & (feature < self._sizes[wrong[0]][0]))
            row = int(bad.nonzero()[0])
            raise InputError(
                f"`x` must hold codes from 0 to {self._sizes[wrong[0]][0] - 1} for categorical feature "
                f"{self.cat_feats[wrong[0]]!r}; got {feature[row].item()} in row {row}"
                f" ({int(bad.sum())} such values in all)"
            )

    def get_embeds(self) -> dict[str, dict[str, Tensor]]:
        """State of every embedding, by the name of its feature."""
        return {name: layer.state_dict() for name, layer in zip(self.cat_feats, self.embeds, strict=True)}

    def save_embeds(self, path: Path | str) -> None:
        """Write one file ``{feature}.h5`` for every embedding, readable by `load_embeds` and the older package.

        Args:
            path: Folder; made when absent.

        Raises:
            StorageError: If the folder cannot be written.
            InputError: If a feature's name is no file name.
        """
        targets = [_embedding_file(Path(path), name) for name in self.cat_feats]
        storage.make_folder(path)
        for target, state in zip(targets, self.get_embeds().values(), strict=True):
            with storage.replacing(target) as temporary:
                torch.save(state, temporary)

    def load_embeds(self, path: Path | str) -> None:
        """Load the embeddings that were saved, by name.

        Args:
            path: Folder that `save_embeds` wrote to.

        Raises:
            StorageError: If a file is missing or cannot be read.
            CheckpointError: If shapes differ; every one is listed.
        """
        found: dict[str, Any] = {}
        for name in self.cat_feats:
            file = _embedding_file(Path(path), name)
            try:
                found[name] = torch.load(file, map_location="cpu", weights_only=True)
            except FileNotFoundError as error:
                raise StorageError(f"there is no embedding of {name!r} at {str(file)!r}") from error
            except Exception as error:  # whatever a damaged file provokes in the reader
                raise StorageError(f"the embedding of {name!r} at {str(file)!r} cannot be read: {error}") from error
        wrong = []
        for (name, state), size in zip(found.items(), self._sizes, strict=True):
            weight = state.get("weight") if isinstance(state, dict) else None
            if not isinstance(weight, Tensor) or tuple(weight.shape) != size:
                given = tuple(weight.shape) if isinstance(weight, Tensor) else "no weight"
                wrong.append(f"{name!r}: expected {size}, found {given}")
        if wrong:
            raise CheckpointError("embeddings have other shapes (codes, width): " + "; ".join(wrong))
        for layer, state in zip(self.embeds, found.values(), strict=True):
            layer.load_state_dict(state)

    def plot_embeds(self, savename: str | None = None, settings: PlotSettings | None = None) -> None:
        """Draw every embedding as a grid of its numbers, categories down and dimensions across.

        Args:
            savename: If given, pictures are saved as ``{settings.savepath}/{savename}_{feature}{settings.format}``.
                (The older package gave all features the same file name, so that the last one survived.)
            settings: Appearance; by default that of `PlotSettings`.

        Raises:
            InputError: If a feature's name is no file name.
        """
        from diffdet.nn.plotting.embeddings import plot_embedding

        for name, layer in zip(self.cat_feats, self.embeds, strict=True):
            assert isinstance(layer, nn.Embedding)
            file = None if savename is None else f"{savename}_{check_file_name(name)}"
            plot_embedding(name, layer.weight.detach().cpu().numpy(), file, settings)


def check_file_name(name: str) -> str:
    """Refuse a name that would lead a file into another folder.

    Args:
        name: Name of a feature.

    Returns:
        The name.

    Raises:
        InputError: If it is no plain file name.
    """
    if not name or name in (".", "..") or any(sign in name for sign in ("/", "\\", "\0", ":")):
        raise InputError(f"the name of a feature must be a plain file name to be saved under; got {name!r}")
    return name


def _embedding_file(folder: Path, name: str) -> Path:
    """The file of an embedding."""
    return folder / f"{check_file_name(name)}.h5"
