"""A measured process of `overlay.py`: one form of one generator, jobs as lines of JSON on standard input."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffdet.core.random import Stream
from diffdet.kernels import pixels
from diffdet.overlay.inference import accelerate
from diffdet.overlay.networks.convnet import ConvNet
from diffdet.overlay.networks.iea import IeaGenerator
from diffdet.overlay.networks.resnet import ResNet
from diffdet.overlay.weights import load_weights, read_weights

NETWORKS = {"convnet": ConvNet, "resnet": ResNet, "ieagan": lambda: IeaGenerator(rdof=True)}
FORMS = {"documented": None, "fast": "float32", "bf16": "bf16"}


def made_up(name: str) -> torch.nn.Module:
    """A network whose norms matter and whose images are lit like those of a trained one: 1 % of the pixels."""
    torch.manual_seed(1)
    model = NETWORKS[name]().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, tensor in model.state_dict(keep_vars=True).items():
            if key.endswith("_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.ndim == 1 and key.endswith(("_mean", "bias")):
                tensor.normal_(0, 0.1, generator=generator)
        last = {"convnet": lambda m: m.features[-2], "resnet": lambda m: m.conv, "ieagan": lambda m: m.output_layer[2]}
        layer = last[name](model)
        image = accelerate(model).activations(start(model, latent(model, 0))[:1]).double().atanh() - layer.bias
        middle, high = image.quantile(0.5), image.flatten()[::3].quantile(0.99)
        factor = 1.75 / (high - middle)  # the middle at -2, 1 % above -0.25
        if name == "ieagan":
            model.output_layer[0].gain.mul_(factor)  # a factor on the last weight would be normalised away
            model.output_layer[0].bias.mul_(factor)
        else:
            layer.weight.mul_(factor)
        layer.bias.fill_(float(-2 - middle * factor))
    return model


def latent(model: torch.nn.Module, event: int) -> tuple[Tensor, ...]:
    generator = Stream("benchmark", event).generator()
    z = torch.randn(40, model.latent, generator=generator)
    return (z, torch.randn(40, 4, generator=generator)) if isinstance(model, IeaGenerator) else (z,)


def start(model: torch.nn.Module, numbers: tuple[Tensor, ...]) -> Tensor:
    with torch.no_grad():
        return model.condition(numbers[0], torch.arange(40), numbers[1]) if len(numbers) > 1 else numbers[0]


class Networks:
    """Events of one form of one network."""

    def __init__(self, name: str, form: str, weights: str) -> None:
        began = time.perf_counter()
        self.model = NETWORKS[name]().eval()
        load_weights(self.model, read_weights(weights), name=name)
        self.painter = None if FORMS[form] is None else accelerate(self.model, precision=FORMS[form])
        if self.painter is not None and not isinstance(self.model, IeaGenerator):
            del self.model.fc  # the painter has what it needs
        self.load_seconds = time.perf_counter() - began

    def event(self, k: int) -> int:
        """Generate an event down to its digits, and return their number."""
        numbers = latent(self.model, k)
        if self.painter is None:
            with torch.no_grad():
                raw = self.model(numbers[0], torch.arange(40), numbers[1]) if len(numbers) > 1 else self.model(*numbers)
            images = pixels.crop_rows(pixels.charge_from_activation(raw[:, 0]))
            return len(images.nonzero())
        position, _ = pixels.lit_pixels(self.painter.charges(start(self.model, numbers)))
        return len(position)

    def activations(self, n: int) -> Tensor:
        """Painted rows of the first images of event 0."""
        latents = start(self.model, latent(self.model, 0))[:n]
        if self.painter is not None:
            return self.painter.activations(latents)
        with torch.no_grad():
            return (self.model.paint(latents) if isinstance(self.model, IeaGenerator) else self.model(latents))[
                :, 0, 3:253
            ]


class Clusters:
    """Events of the generator `clusters`, several at a time."""

    def __init__(self, threads: int) -> None:
        from diffdet.overlay.generator import make_generator

        began = time.perf_counter()
        self.generator = make_generator("clusters", threads=max(threads, 1))
        self.load_seconds = time.perf_counter() - began
        self.size = 100

    def event(self, k: int) -> int:
        """Digits of a hundred events."""
        return len(self.generator.sample(self.size, seed=1, start=k * self.size)) // self.size


def measured(source: Any, size: int, runs: int) -> dict[str, Any]:
    source.event(0)
    wall, cpu, digits = [], [], []
    for k in range(1, runs + 1):
        began, used = time.perf_counter(), time.process_time()
        digits.append(source.event(k))
        wall.append((time.perf_counter() - began) / size)
        cpu.append((time.process_time() - used) / size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "wall": wall,
        "cpu": cpu,
        "digits": sum(digits) / runs,
        "peak_mb": peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6,
        "load_seconds": source.load_seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    source: Any = None
    for line in sys.stdin:
        job = json.loads(line)
        try:
            if job["job"] == "make":
                from safetensors.torch import save_file

                save_file({k: v.contiguous() for k, v in made_up(job["name"]).state_dict().items()}, job["weights"])
                answer: dict[str, Any] = {}
            elif job["job"] == "measure":
                if source is None:
                    clusters = job["name"] == "clusters"
                    source = (
                        Clusters(options.threads) if clusters else Networks(job["name"], job["form"], job["weights"])
                    )
                answer = measured(source, getattr(source, "size", 1), job["runs"])
            else:
                found = source.activations(2)
                path = Path(job["reference"])
                if job["form"] == "documented":
                    torch.save(found, path)
                    answer = {}
                else:
                    expected = torch.load(path, weights_only=True)
                    error = (found - expected).abs()
                    answer = {"largest": error.max().item(), "rms": error.square().mean().sqrt().item()}
        except Exception as error:  # the answer carries it to the script that asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
