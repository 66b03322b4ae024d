"""Values as JSON: whole lines at the speed of the encoder alone, and rounded figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
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


def json_number(value: float) -> float | None:
    """A figure with six decimals; None for NaN, which JSON lacks."""
    return None if math.isnan(value) else round(value, 6)
