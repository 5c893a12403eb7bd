"""The type checker that the tests hang on kernels: shapes are checked at run time, and an int may stand for a float."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
