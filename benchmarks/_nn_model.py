"""Predictions of a whole model, beside its network alone on the same batches."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from diffdet.nn.models.model import Model
from diffdet.nn.models.model_builder import ModelBuilder

N_FEATURES = 20


def predictions(rows: int, bs: int, runs: int = 3) -> dict[str, Any]:
    """Seconds that `Model.predict` takes for an array, and that its network takes for the same numbers.

    Args:
        rows: Number of events.
        bs: Events a batch.
        runs: How often each is done; they take turns.
    """
    names = [f"x{k}" for k in range(N_FEATURES)]
    body = {"depth": 3, "width": 64, "act": "swish"}
    builder = ModelBuilder("classification", n_out=1, cont_feats=names, model_args={"body": body})
    model = Model(builder, seed=0)
    x = np.random.default_rng(0).standard_normal((rows, N_FEATURES), dtype=np.float32)
    tensor = torch.from_numpy(x)
    net = model.net.eval()

    def alone() -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([net(part) for part in tensor.split(bs)])

    alone()
    seconds: dict[str, list[float]] = {"predict": [], "network": []}
    for _ in range(runs):
        for name, call in (("predict", lambda: model.predict(x, bs=bs)), ("network", alone)):
            started = time.perf_counter()
            out = call()
            seconds[name].append(time.perf_counter() - started)
            assert len(out) == rows
    return seconds
