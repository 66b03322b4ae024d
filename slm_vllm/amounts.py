"""Formats sizes, memory, durations and counts for people."""

from __future__ import annotations

GIB = 1 << 30


def format_size(n_bytes: float) -> str:
    """Bytes of data with a unit, in steps of 1,000, as disks and networks are sold."""
    for unit in ("B", "KB", "MB"):
        if n_bytes < 999.95:
            return f"{n_bytes:,.0f} {unit}" if unit == "B" else f"{n_bytes:,.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:,.1f} GB"


def format_memory(n_bytes: float) -> str:
    """Bytes of memory in GiB, as GPUs are sold and engines speak of it."""
    return f"{n_bytes / GIB:,.1f}".removesuffix(".0") + " GiB"


def counted(number: int, noun: str) -> str:
    """A number of things, such as `1 row` and `2,000 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_clock(seconds: float) -> str:
    """A span as minutes and seconds, with hours where it has some."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_rate(per_second: float) -> str:
    """So many a second: tenths, and below one two digits that count, since 0.02 is not nothing."""
    return f"{per_second:.1f}" if per_second >= 0.995 else f"{per_second:.2g}"
