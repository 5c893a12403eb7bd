"""Animated pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence

__all__ = ["animated_gif"]

# Browsers slow faster animations down.
_SHORTEST = 20


def animated_gif(frames: Sequence[bytes], length: float) -> bytes:
    """An animated GIF, endlessly repeated.

    Args:
        frames: Pictures in PNG, at least one; all are brought to the size of the last.
        length: How long one round takes, s.

    Returns:
        The file's content.
    """
    from PIL import Image

    pictures = [Image.open(io.BytesIO(frame)).convert("P", palette=Image.Palette.ADAPTIVE) for frame in frames]
    size = pictures[-1].size
    pictures = [picture if picture.size == size else picture.resize(size) for picture in pictures]
    out = io.BytesIO()
    duration = max(_SHORTEST, round(1000 * length / len(pictures)))
    pictures[0].save(out, format="GIF", save_all=True, append_images=pictures[1:], duration=duration, loop=0)
    return out.getvalue()
