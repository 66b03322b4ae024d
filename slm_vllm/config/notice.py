"""What users should know of how their configuration was read."""

from __future__ import annotations

import logging
from functools import cache

log = logging.getLogger(__name__)


@cache
def say_once(text: str) -> None:
    """Says it on standard error, the first time only: one command composes several runs."""
    log.warning("%s", text)
