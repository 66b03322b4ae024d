"""Values as JSON: whole lines at the speed of the encoder alone, rounded figures, what is read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from json import encoder as _json
from typing import Any


def _made_once() -> Callable[[Any], str]:
    """What `json.JSONEncoder(ensure_ascii=False).encode` gives.

    That makes a new encoder at each call, which costs more than a short line does.
    """
    whole = json.JSONEncoder(ensure_ascii=False)
    make = getattr(_json, "c_make_encoder", None)
    if make is None:  # an interpreter without it
        return whole.encode
    quoted = _json.encode_basestring
    pieces = make(None, whole.default, quoted, None, ": ", ", ", False, False, True)
    return lambda value: "".join(pieces(value, 0))


encode: Callable[[Any], str] = _made_once()
"""One value as JSON with everything but quotes and control characters left as it is."""


def encode_bytes(value: Any) -> bytes:
    """The same in UTF-8 for a hash, which half a surrogate pair is part of."""
    return encode(value).encode("utf-8", errors="surrogatepass")


def json_number(value: float) -> float | None:
    """A figure with six decimals; None for NaN, which JSON lacks."""
    return None if math.isnan(value) else round(value, 6)


def as_number(value: object) -> float | None:
    """A finite number that was read; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def as_mapping(value: object) -> Mapping[str, Any]:
    """An object that was read; an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}
