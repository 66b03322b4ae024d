from __future__ import annotations

import pytest

from slm_vllm.amounts import counted, format_clock, format_memory, format_rate, format_size


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 KB"),
        (1_500_000, "1.5 MB"),
        (999_949, "999.9 KB"),
        (999_950, "1.0 MB"),
        (2_345_678_901_234, "2,345.7 GB"),
    ],
)
def test_data_goes_by_thousands(n_bytes: int, text: str) -> None:
    assert format_size(n_bytes) == text


def test_memory_goes_by_gibibytes() -> None:
    assert format_memory(32 << 30) == "32 GiB"
    assert format_memory(3 << 29) == "1.5 GiB"


@pytest.mark.parametrize(("seconds", "text"), [(5.9, "0:05"), (754, "12:34"), (3600, "1:00:00")])
def test_clock(seconds: float, text: str) -> None:
    assert format_clock(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (0.0188, "0.019"),
        (0.32, "0.32"),
        (0.994, "0.99"),
        (0.996, "1.0"),
        (3.13, "3.1"),
        (655, "655.0"),
    ],
)
def test_a_slow_rate_is_not_nothing(rate: float, text: str) -> None:
    assert format_rate(rate) == text


@pytest.mark.parametrize(("number", "text"), [(0, "0 rows"), (1, "1 row"), (2000, "2,000 rows")])
def test_one_thing_is_no_plural(number: int, text: str) -> None:
    assert counted(number, "row") == text
