"""Random streams keyed by what is simulated, never by when.

A stream is named by a key: a seed followed by what the numbers are for (state, epoch, volume, ...). Whoever knows the
key can draw the same numbers again, in any order, in any process. Muons take theirs from an endless sequence that is
cut into canonical blocks of `MUON_BLOCK` muons with one generator each: so the numbers of a muon depend on its identity
alone, not on the size of the batch that it travels in, and drawing costs what `torch.randn` costs.

The key is hashed into the whole state of the generator (19968 bits). `torch.Generator.manual_seed` would not do: on the
CPU it keeps the lower 32 bits of a seed only, and among 100,000 blocks two would be expected to share their numbers.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from operator import index
from typing import Any, Final, Self

import torch
from torch import Tensor

from diffdet.core.errors import InputError, NotSupportedError

MUON_BLOCK: Final = 1024
"""Muons to a canonical block. Part of the identity of every stream of muons: another value gives other muons."""

_STATE_BYTES: Final = 5056
_N_WORDS: Final = 624
_FIRST_WORD: Final = 24


def key_seed(*key: int | str) -> int:
    """Hash a key to a seed, equal in every process and on every machine.

    Args:
        *key: Integers of any size and strings; ``1`` and ``"1"`` are different, and so are ``("ab", "c")`` and ``("a",
            "bc")``.

    Returns:
        An integer from 0 to 2**63 - 1.

    Raises:
        InputError: If an element is neither an integer nor a string.
    """
    return int.from_bytes(hashlib.blake2b(_encode(_checked_key(key)), digest_size=8).digest(), "little") >> 1


def _encode(key: tuple[int | str, ...]) -> bytes:
    """Bytes of a key: no two keys share them, and none are the beginning of another's, element by element."""
    parts: list[bytes] = []
    for element in key:
        if isinstance(element, str):
            text = element.encode()
            parts.append(b"s%d:%b" % (len(text), text))
        else:
            parts.append(b"i%d;" % element)
    return b"".join(parts)


def _checked_key(key: tuple[Any, ...]) -> tuple[int | str, ...]:
    """The key with every integer as a Python int, after refusing what is no key."""
    checked: list[int | str] = []
    for element in key:
        if isinstance(element, str):
            checked.append(element)
        elif isinstance(element, bool) or not hasattr(type(element), "__index__"):
            raise InputError(
                f"`key` must consist of integers and strings; got {element!r} of type {type(element).__name__}"
            )
        else:
            checked.append(index(element))
    return tuple(checked)


class _Scratch(threading.local):
    """State of a freshly seeded CPU generator and a view of its words, one pair for each thread.

    Raises:
        NotSupportedError: If torch lays the state out in a way that is not known.
    """

    def __init__(self) -> None:
        self.state = torch.Generator(device="cpu").manual_seed(0).get_state()
        known = self.state.numel() == _STATE_BYTES
        words = self.state[_FIRST_WORD : _FIRST_WORD + 8 * _N_WORDS].view(torch.int32) if known else self.state
        # Mersenne Twister of seed 0 starts with 0, 1812433253 * 0 + 1, 1812433253 * 1 + 2, each in the lower half of 64
        # bits.
        if words[:6].tolist() != [0, 0, 1, 0, 1812433255, 0]:
            raise NotSupportedError(
                f"torch {torch.__version__} lays out the state of its CPU generator in a way that keyed streams do not "
                "know; use a torch version named in `constraints.txt`"
            )
        self.words = words[::2]


@functools.cache
def _scratch() -> _Scratch:
    """The scratch, made when first needed."""
    return _Scratch()


def _generator(encoded_key: bytes) -> torch.Generator:
    """A CPU generator whose whole state is the hash of an encoded key."""
    digest = bytearray(hashlib.shake_128(encoded_key).digest(4 * _N_WORDS))
    scratch = _scratch()
    scratch.words.copy_(torch.frombuffer(digest, dtype=torch.int32))
    generator = torch.Generator(device="cpu")
    generator.set_state(scratch.state)
    return generator


class Stream:
    """A named source of random numbers.

    Two streams of one key give the same numbers; streams of different keys are independent. A stream keeps no state:
    nothing that is drawn changes it.

    Args:
        *key: Integers and strings that say what the numbers are for, for example ``Stream(seed, "train", epoch,
            volume)``. The key is all there is to a stream, so it can be stored as JSON and read back.

    Raises:
        InputError: If an element of the key is neither an integer nor a string.
    """

    __slots__ = ("key",)

    key: tuple[int | str, ...]

    def __init__(self, *key: int | str) -> None:
        self.key = _checked_key(key)

    @classmethod
    def from_torch(cls, generator: torch.Generator | None = None) -> Self:
        """A stream whose key is drawn from a torch generator, for those who seed with `torch.manual_seed` only.

        Args:
            generator: Where to draw the key from; torch's default CPU generator when None. It moves on by one draw, so
                the next call gives another stream.
        """
        device = "cpu" if generator is None else generator.device
        number = torch.randint(0, 2**63 - 1, (), generator=generator, dtype=torch.int64, device=device)
        return cls("torch", int(number))

    def child(self, *key: int | str) -> Self:
        """The stream whose key is this one's followed by `key`."""
        return type(self)(*self.key, *key)

    def generator(self, *extra_key: int | str) -> torch.Generator:
        """A fresh CPU generator of this stream, at its beginning.

        Args:
            *extra_key: Appended to the key: ``stream.generator("a")`` is ``stream.child("a").generator()``.
        """
        return _generator(_encode(self.key + _checked_key(extra_key)))

    def muons(self) -> MuonStream:
        """The muons of this stream: per-muon random numbers under the same key."""
        return MuonStream(*self.key)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, Stream) and other.key == self.key

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.key))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.key))})"


class MuonStream(Stream):
    """Random numbers of an endless sequence of muons.

    The numbers that muon i gets for a purpose depend on the key of the stream, the purpose, the kind and number of
    draws, the dtype and i; not on which other muons are asked for. Whole blocks of `MUON_BLOCK` muons are always drawn
    and then cut, so ask for many muons at once. Two calls with one purpose give the same numbers: give each use a
    purpose of its own.
    """

    __slots__ = ()

    def normal(
        self,
        purpose: str,
        draws: tuple[int, ...],
        start: int,
        stop: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Standard normal numbers of muons start to stop.

        Args:
            purpose: What the numbers are for, for example ``"scatter"``.
            draws: Shape of the draws of one muon; ``()`` for a single number.
            start: First muon.
            stop: One after the last muon.
            dtype: Type of the numbers; torch's default when None. Numbers are drawn in it, so another type gives other
                numbers.
            device: Where to put them; they are always drawn on the CPU, so that every device sees the same ones.

        Returns:
            Numbers of shape ``(*draws, stop - start)``.

        Raises:
            InputError: If the range is not 0 <= start <= stop.
        """
        return self._blocks("normal", purpose, draws, start, stop, dtype, device)

    def uniform(
        self,
        purpose: str,
        draws: tuple[int, ...],
        start: int,
        stop: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Numbers uniform in [0, 1) of muons start to stop; arguments and result as for `normal`."""
        return self._blocks("uniform", purpose, draws, start, stop, dtype, device)

    def _blocks(
        self,
        kind: str,
        purpose: str,
        draws: tuple[int, ...],
        start: int,
        stop: int,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> Tensor:
        """Draw the blocks that cover the range and cut them to it."""
        if not 0 <= start <= stop:
            raise InputError(f"`start` and `stop` must satisfy 0 <= start <= stop; got start = {start}, stop = {stop}")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        numbers = torch.empty((*draws, stop - start), dtype=dtype, device="cpu")
        block_numbers = torch.empty((*draws, MUON_BLOCK), dtype=dtype, device="cpu")
        common = _encode((*self.key, purpose, kind))
        for block in range(start // MUON_BLOCK, -(-stop // MUON_BLOCK)):
            generator = _generator(common + _encode((block,)))
            if kind == "normal":
                block_numbers.normal_(generator=generator)
            else:
                block_numbers.uniform_(generator=generator)
            first = block * MUON_BLOCK
            low, high = max(start, first), min(stop, first + MUON_BLOCK)
            numbers[..., low - start : high - start] = block_numbers[..., low - first : high - first]
        return numbers.to("cpu" if device is None else device)
