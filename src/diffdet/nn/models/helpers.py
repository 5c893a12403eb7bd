"""What builders of models need to know about features and targets: categories and their embeddings, objectives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError

Objective = Literal["multiclass", "classification", "regression"]


def read_objective(objective: str) -> Objective:
    """What kind of task a text names.

    Args:
        objective: Text in any case: one that contains ``multiclass`` is multiclass (exclusive classes), else one that
            contains ``class`` is classification (independent yes-or-no outputs), one that contains ``regress`` is
            regression.

    Returns:
        The kind.

    Raises:
        InputError: If it names none of them; the message lists the choices and names the nearest.
    """
    text = objective.lower() if isinstance(objective, str) else ""
    if "multiclass" in text:
        return "multiclass"
    if "class" in text:
        return "classification"
    if "regress" in text:
        return "regression"
    choices = ("classification", "multiclass", "regression")
    near = "classification" if text.startswith(("binary", "multilabel")) else None
    hint = f". Did you mean {near!r}?" if near else did_you_mean(text, choices)
    raise InputError(f"`objective` must be one of {', '.join(map(repr, choices))}; got {objective!r}{hint}")


class HasCategories(Protocol):
    """Data that `CatEmbedder.from_fy` can look at: a fold yielder."""

    def get_use_cat_feats(self) -> list[str]:
        """Names of the categorical features that are used, in the order of their columns."""
        ...

    def get_column(self, column: str, /) -> Any:
        """Every value of a column, over all folds."""
        ...


class CatEmbedder:
    """Sizes of the embeddings of categorical features.

    Args:
        cat_names: Names of the features, in the order of their columns.
        cat_szs: Number of categories (codes 0, ..., n - 1) of each.
        emb_szs: Width of the embedding of each; by default min(max_emb_sz, (1 + n) // 2).
        max_emb_sz: Largest width that is chosen by default.
        emb_load_path: Folder with saved embeddings, one file a feature; see `CatEmbHead`.

    Attributes:
        cat_names, cat_szs, emb_szs, max_emb_sz: As given, or chosen.
        emb_load_path: As a `pathlib.Path`, or None.
        n_cat_in: Number of features.

    Iterating gives (name, number of categories, width); an index or a name gives (number of categories, width).

    Raises:
        InputError: If the lengths differ, a name is given twice, or a number is below 1.
    """

    def __init__(
        self,
        cat_names: Sequence[str],
        cat_szs: Sequence[int],
        emb_szs: Sequence[int] | None = None,
        max_emb_sz: int = 50,
        emb_load_path: Path | str | None = None,
    ) -> None:
        self.cat_names = list(cat_names)
        self.cat_szs = [int(n) for n in cat_szs]
        self.max_emb_sz = max_emb_sz
        self.emb_load_path = Path(emb_load_path) if emb_load_path is not None else None
        self._check("cat_szs", self.cat_szs)
        if max_emb_sz < 1:
            raise InputError(f"`max_emb_sz` must be at least 1; got {max_emb_sz}")
        if len(set(self.cat_names)) < len(self.cat_names):
            twice = sorted({name for name in self.cat_names if self.cat_names.count(name) > 1})
            raise InputError(
                f"`cat_names` must name every feature once; got {', '.join(map(repr, twice))} more than once"
            )
        if emb_szs is None:
            self.emb_szs = [min(max_emb_sz, (1 + n) // 2) for n in self.cat_szs]
        else:
            self.emb_szs = [int(n) for n in emb_szs]
            self._check("emb_szs", self.emb_szs)

    def _check(self, argument: str, sizes: list[int]) -> None:
        """One size of at least 1 for every feature."""
        if len(sizes) != len(self.cat_names):
            raise InputError(
                f"`{argument}` must have one number for each of the {len(self.cat_names)} `cat_names`; got {len(sizes)}"
            )
        small = [f"{n} for {name!r}" for name, n in zip(self.cat_names, sizes, strict=True) if n < 1]
        if small:
            raise InputError(f"`{argument}` must be at least 1; got {', '.join(small)}")

    @property
    def n_cat_in(self) -> int:
        """Number of categorical features."""
        return len(self.cat_names)

    @classmethod
    def from_fy(
        cls,
        fy: HasCategories,
        emb_szs: Sequence[int] | None = None,
        max_emb_sz: int = 50,
        emb_load_path: Path | str | None = None,
    ) -> CatEmbedder:
        """Sizes from data: one more than the largest code of each feature, over all folds.

        Args:
            fy: Data with `get_use_cat_feats`, and `get_feature` or `get_column` for the values of a feature.
            emb_szs: As for the class.
            max_emb_sz: As for the class.
            emb_load_path: As for the class.

        Returns:
            The sizes.

        Raises:
            InputError: If a feature has no value, or one that is no code: NaN, negative, or not whole.
        """
        names = list(fy.get_use_cat_feats())
        read = getattr(fy, "get_feature", None) or fy.get_column
        return cls(names, [1 + _largest_code(name, read(name)) for name in names], emb_szs, max_emb_sz,
                   emb_load_path)  # fmt: skip

    def __len__(self) -> int:
        return len(self.cat_names)

    def __iter__(self) -> Iterator[tuple[str, int, int]]:
        return iter(zip(self.cat_names, self.cat_szs, self.emb_szs, strict=True))

    def __getitem__(self, key: int | str) -> tuple[int, int]:
        if isinstance(key, str):
            if key not in self.cat_names:
                raise InputError(
                    f"no categorical feature {key!r}; there are {', '.join(map(repr, self.cat_names)) or 'none'}"
                    f"{did_you_mean(key, self.cat_names)}"
                )
            key = self.cat_names.index(key)
        return self.cat_szs[key], self.emb_szs[key]

    def __repr__(self) -> str:
        rows = ", ".join(f"{name}: {n} -> {width}" for name, n, width in self)
        return f"CatEmbedder({rows})"


def _largest_code(name: str, column: Any) -> int:
    """The largest code in a column, after refusing what is no code."""
    codes = np.asarray(column).reshape(-1)
    if codes.size == 0:
        raise InputError(f"categorical feature {name!r} must have values; got an empty column")
    numbers = codes.astype(np.float64)
    bad = ~(np.isfinite(numbers) & (numbers >= 0) & (numbers == np.floor(numbers)))
    if bad.any():
        raise InputError(
            f"categorical feature {name!r} must hold codes 0, 1, 2, ...; {int(bad.sum())} of {codes.size} values are "
            f"not, the first is {codes[bad.argmax()]}"
        )
    return int(numbers.max())
