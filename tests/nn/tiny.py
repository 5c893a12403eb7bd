"""Small models and data that tests of fits share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffdet.nn.models.model import Model
from diffdet.nn.models.model_builder import ModelBuilder

FEATS = ["a", "b", "c", "d"]


class Folds:
    """A source of folds with nothing but what the protocol asks for."""

    def __init__(self, folds: list[dict[str, Any]]) -> None:
        self.folds = folds
        self.saved: dict[str, dict[int, np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.folds)

    def get_fold(self, idx: int) -> dict[str, Any]:
        return self.folds[idx]

    def save_fold_pred(self, pred: np.ndarray, fold_idx: int, pred_name: str = "pred") -> None:
        self.saved.setdefault(pred_name, {})[fold_idx] = pred


def truth(x: np.ndarray) -> np.ndarray:
    """What is to be learnt."""
    return x[:, 0] - 0.5 * x[:, 1] + x[:, 2] * x[:, 3]


def data(kind: str = "classification", n_folds: int = 4, n: int = 120, seed: int = 0, weighted: bool = True) -> Folds:
    """Folds of four features, and a target that depends on all of them."""
    rng = np.random.default_rng(seed)
    folds = []
    for _ in range(n_folds):
        x = rng.normal(size=(n, 4)).astype(np.float32)
        value = truth(x)
        target = {
            "classification": (value > 0).astype(np.float32),
            "regression": value,
            "multiclass": np.digitize(value, [-0.5, 0.5]),
        }[kind]
        weights = rng.uniform(0.5, 2.0, n).astype(np.float32)
        folds.append({"inputs": x, "targets": target, "weights": weights if weighted else None})
    return Folds(folds)


def builder(kind: str = "classification", *, width: int = 12, bn: bool = False, **settings: Any) -> ModelBuilder:
    """A network of two hidden layers."""
    model_args = settings.pop("model_args", {"body": {"depth": 2, "width": width, "bn": bn, "act": "swish"}})
    n_out = settings.pop("n_out", 3 if kind == "multiclass" else 1)
    settings = {"seed": 1, **settings}
    return ModelBuilder(kind, n_out, FEATS, model_args=model_args, **settings)


def model(kind: str = "classification", **settings: Any) -> Model:
    """A model of such a network."""
    return Model(builder(kind, **settings))


def bits(fitted: Model) -> dict[str, list[float]]:
    """Weights as plain numbers, to the last bit."""
    return {key: value.double().flatten().tolist() for key, value in fitted.net.state_dict().items()}


def recorder(names: list[str], base: type, events: Any) -> Callable[[], Any]:
    """A callback that writes down which events happened."""

    def make() -> Any:
        hooks = {event: (lambda self, event=event: names.append(event)) for event in events}
        return type("Recorder", (base,), hooks)()

    return make
