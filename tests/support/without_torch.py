"""Imported first in a program with a fake engine: its tokenizer loads in a fifth of the time.

transformers imports torch wherever it finds it, also for a tokenizer, which needs none of it.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
