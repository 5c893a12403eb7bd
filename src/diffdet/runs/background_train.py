"""The job `background train`: generators of background learn from events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from diffdet.core.checks import check_choice
from diffdet.core.errors import InputError
from diffdet.core.storage import make_folder, replacing, write_text
from diffdet.runs.background_evaluate import STANDIN
from diffdet.runs.doctor import versions
from diffdet.runs.folder import RunFolder
from diffdet.runs.signals import stopping
from diffdet.runs.tasks.base import Progress
from diffdet.runs.threads import keep_to_one_thread

if TYPE_CHECKING:
    from torch import Tensor, nn

    from diffdet.loop.engine import Loop
    from diffdet.overlay.digits import Digits

__all__ = ["MODELS", "train"]

MODELS: Final = ("clusters", "convnet", "resnet", "ieagan")

_RESULT_VERSION: Final = 1
_STANDIN_TEXT: Final = "the stand-in simulation of diffdet, not Belle II data"


@dataclass(frozen=True)
class Size:
    """How large a training is.

    Attributes:
        events: Events to learn from.
        epochs: Epochs.
        batch: Images to a batch; for `ieagan` sensors to an event.
        batches: Batches, or events of `ieagan`, in an epoch; all where None.
        n_critic: Batches of the critic to one update of the generator.
        refresh: Batches from which statistics of norms are made anew at the end.
    """

    events: int
    epochs: int
    batch: int
    batches: int | None
    n_critic: int = 5
    refresh: int = 20


SIZES: Final = {
    "clusters": {False: Size(400, 1, 0, None), True: Size(12, 1, 0, None)},
    "convnet": {False: Size(400, 40, 64, None), True: Size(2, 2, 2, 2, n_critic=1, refresh=1)},
    "resnet": {False: Size(400, 40, 64, None), True: Size(2, 2, 2, 2, n_critic=1, refresh=1)},
    "ieagan": {False: Size(400, 40, 40, None), True: Size(2, 2, 3, 2, refresh=1)},
}
"""Sizes by model, and by whether the training is a smoke test."""


def train(
    model: str,
    out: str | Path,
    *,
    data: str | Path = STANDIN,
    events: int | None = None,
    epochs: int | None = None,
    device: str | None = None,
    seed: int = 0,
    resume: bool = False,
    smoke: bool = False,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], int]:
    """Train a generator and write its weights into a run folder.

    Args:
        model: One of `MODELS`.
        out: The run folder; new or empty.
        data: File of digits, or ``"standin"``.
        events: Events of the data to use; what the size of the training says where None.
        epochs: Epochs of a network, likewise.
        device: Device of a network; ``"auto"`` takes a GPU where there is one.
        seed: Of everything that is drawn.
        resume: Go on with a network's run in the folder.
        smoke: A small size that visits every part.
        progress: Told ``(done, total, text)``.

    Returns:
        Content of `result.json`, and the exit code: 0, or that of the signal which ended the run.

    Raises:
        InputError: If an argument cannot be used; nothing has been written.
        StorageError: If a file cannot be read or written.
    """
    started, told = time.monotonic(), progress or _silent
    check_choice("MODEL", model, MODELS)
    if model == "clusters" and (resume or epochs is not None or device is not None):
        raise InputError(
            "MODEL: 'clusters' is counted, not descended: --resume, --epochs and --device are for networks"
        )
    folder = RunFolder(Path(out))
    folder.check_free()
    if not resume:
        folder.check_new()
        if folder.result.is_file():
            raise InputError(f"--out: expected a new or empty folder, given {str(out)!r}, which holds a result already")
    keep_to_one_thread()
    size = SIZES[model][smoke]
    text = _STANDIN_TEXT if str(data) == STANDIN else str(data)
    with stopping():
        digits = _events(data, size.events if events is None else events, seed, told)
    result: dict[str, Any] = {
        "format_version": _RESULT_VERSION,
        "kind": "background_train",
        "status": "complete",
        "reason": "",
        "model": model,
        "data": text,
        "events": digits.n_events,
        "seed": seed,
        "smoke": smoke,
    }
    lock = folder.lock()
    try:
        folder.write_config(json.dumps({k: result[k] for k in ("model", "data", "events", "seed", "smoke")}) + "\n")
        if model == "clusters":
            found, code = _fit(digits, folder, seed, text, told), 0
        else:
            found, code = _descend(model, digits, folder, size, epochs, device, seed, resume, text, told)
        result |= found | {
            "wall_seconds": round(time.monotonic() - started, 3),
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": versions(),
        }
        result = folder.write_result(result)
    finally:
        lock.release()
    return result, code


def _events(data: str | Path, events: int, seed: int, told: Progress) -> Digits:
    """Events to learn from."""
    from diffdet.overlay.digits import Digits

    parts: list[Digits] = []
    done = 0
    for block in _blocks(data, events, seed):
        parts.append(block)
        done += block.n_events
        told(done, events, "reading events")
    if done < 2:
        raise InputError(f"--data: expected at least 2 events, given {done}")
    return Digits.concatenate(parts)


def _blocks(data: str | Path, events: int, seed: int) -> Iterator[Digits]:
    if str(data) == STANDIN:
        from diffdet.overlay.standin.sample import simulate_digits

        for start in range(0, events, 5):
            yield simulate_digits(range(start, min(start + 5, events)), seed=seed)
    else:
        from diffdet.runs.background_files import read_blocks

        yield from read_blocks(data, events, 25)[0]


def _fit(digits: Digits, folder: RunFolder, seed: int, text: str, told: Progress) -> dict[str, Any]:
    """Learn `clusters`."""
    from diffdet.overlay.clusters.fit import fit_clusters

    steps = iter(range(1, 1000))
    about = {"model": "clusters", "trained_on": text, "events": digits.n_events, "seed": seed, "versions": versions()}
    weights = fit_clusters(
        digits,
        seed=seed,
        check_events=min(40, digits.n_events),
        about=about,
        told=lambda what: told(next(steps), None, what),
    )
    path = folder.path / "clusters.safetensors"
    return {"weights": str(path), "weights_sha256": weights.save(path)}


def _descend(
    model: str,
    digits: Digits,
    folder: RunFolder,
    size: Size,
    epochs: int | None,
    device: str | None,
    seed: int,
    resume: bool,
    text: str,
    told: Progress,
) -> tuple[dict[str, Any], int]:
    """Train a network on the shared loop."""
    import torch

    from diffdet.core.random import Stream
    from diffdet.loop.callbacks import StopOnNonFinite
    from diffdet.loop.checkpoint import Checkpoints
    from diffdet.loop.engine import Loop
    from diffdet.loop.interrupts import exit_code
    from diffdet.overlay.training.data import SensorImages

    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device in (None, "auto") else device)
    stream = Stream("overlay-train", seed)
    images = SensorImages(digits, stream.child("data"), dequantise=model == "ieagan")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # first weights; everything that is drawn later has a stream of its own
        step, batches, paint = _parts(model, images, size, stream, where)
    n_epochs = size.epochs if epochs is None else epochs
    checkpoints = Checkpoints(make_folder(folder.path / "checkpoints"), every_seconds=300.0)
    loop: Loop[Any] = Loop(step, [StopOnNonFinite()], checkpoints=checkpoints, interruptible=True)

    def counted(epoch: int) -> Iterator[Tensor]:
        for number, batch in enumerate(batches(epoch), start=1):
            yield batch
            told(number, None, f"epoch {epoch} of {n_epochs}")

    state = loop.run(counted, n_epochs=n_epochs, resume=resume)
    _write_metrics(folder, loop)
    found: dict[str, Any] = {"epochs": state.n_epochs_done, "reason": state.stop_reason or ""}
    if state.interrupted_by is not None:
        return found | {"status": "interrupted"}, exit_code(state.interrupted_by)
    return found | _export(model, step.average.average, paint, folder, size, text, where), 0


def _parts(
    model: str, images: Any, size: Size, stream: Any, device: Any
) -> tuple[Any, Callable[[int], Iterator[Tensor]], Callable[[nn.Module, int], Tensor]]:
    """Step, batches of an epoch, and how to paint a batch, for a network by its name."""
    import torch

    if model == "ieagan":
        from diffdet.overlay.networks.iea import N_FREEDOM, IeaGenerator
        from diffdet.overlay.training.discriminator import Discriminator
        from diffdet.overlay.training.iea import IeaStep

        sensors = torch.arange(size.batch)
        generator = IeaGenerator(rdof=True).to(device)
        step: Any = IeaStep(generator, Discriminator().to(device), sensors, stream.child("latents"))

        def paint(network: nn.Module, number: int) -> Tensor:
            random = stream.generator("refresh", number)
            z = torch.randn((len(sensors), generator.latent), generator=random).to(device)
            freedom = torch.randn((len(sensors), N_FREEDOM), generator=random).to(device)
            return network(z, sensors.to(device), freedom)

        return step, lambda epoch: images.events(epoch, sensors, size.batches), paint

    from diffdet.overlay.networks.convnet import LATENT, ConvNet
    from diffdet.overlay.networks.resnet import ResNet
    from diffdet.overlay.training.critics import critic_for
    from diffdet.overlay.training.wgan import WganStep

    network_of: Any = {"convnet": ConvNet, "resnet": ResNet}[model]
    step = WganStep(
        network_of().to(device), critic_for(model).to(device), LATENT, stream.child("latents"), n_critic=size.n_critic
    )

    def paint_images(network: nn.Module, number: int) -> Tensor:
        z = torch.randn((size.batch, LATENT), generator=stream.generator("refresh", number))
        return network(z.to(device))

    return step, lambda epoch: images.shuffled(epoch, size.batch, size.batches), paint_images


def _write_metrics(folder: RunFolder, loop: Loop[Any]) -> None:
    """One line for every epoch."""
    rows = loop.state.history.rows
    write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in rows))


def _export(
    model: str,
    network: nn.Module,
    paint: Callable[[nn.Module, int], Tensor],
    folder: RunFolder,
    size: Size,
    text: str,
    device: Any,
) -> dict[str, Any]:
    """Write the averaged weights: as safetensors with a description, and as the bare state dict that Belle II reads."""
    import hashlib

    import torch
    from safetensors.torch import save_file

    from diffdet.overlay.training.averages import refresh_norms

    network = network.to(device)
    refresh_norms(network, lambda number: paint(network, number), size.refresh)
    state = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    path, bare = folder.path / f"{model}.safetensors", folder.path / f"{model}.pt"
    metadata = {"model": model, "trained_on": text, "class_order": "numeric"}
    with replacing(path) as temporary:
        save_file(state, str(temporary), metadata)
    with replacing(bare) as temporary:
        torch.save(state, temporary)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"weights": str(path), "state_dict": str(bare), "weights_sha256": digest}


def _silent(done: int, total: int | None, text: str) -> None:
    """Progress that nobody asked for."""
