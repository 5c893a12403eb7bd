"""Files of one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from diffdet.runs.folder import finite


def as_lines(entries: Iterable[Mapping[str, Any]]) -> str:
    """One JSON object a line; numbers that are not finite become null, which JSON can say."""
    return "".join(json.dumps(finite(entry), ensure_ascii=False, allow_nan=False) + "\n" for entry in entries)
