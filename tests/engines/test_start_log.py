"""The parts of a start, found in lines of the versions that are supported."""

from __future__ import annotations

import pytest

from slm_vllm.engines.start_log import start_parts

# As they stand in the source of each version; 0.32's on a CPU were seen.
V0_9 = """\
INFO 11-26 10:20:42 [default_loader.py:272] Loading weights took 0.58 seconds
INFO 11-26 10:20:42 [gpu_model_runner.py:1801] Model loading took 0.2576 GiB and 1.113256 seconds
INFO 11-26 10:20:51 [monitor.py:34] torch.compile takes 21.40 s in total
INFO 11-26 10:20:52 [worker.py:295] Memory profiling takes 0.47 seconds
INFO 11-26 10:21:06 [gpu_model_runner.py:2326] Graph capturing finished in 14 secs, took 0.51 GiB
INFO 11-26 10:21:06 [core.py:172] init engine (profile, create kv cache, warmup model) took 35.9 seconds
"""  # noqa: E501
V0_32 = """\
(EngineCore pid=9) INFO 11-26 10:20:42 [base_loader.py:82] Initializing model took 0.670129 seconds
(EngineCore pid=9) INFO 11-26 10:20:43 [default_loader.py:501] Loading weights took 1.12 seconds
(EngineCore pid=9) INFO 11-26 10:20:44 [monitor.py:60] torch.compile took 4.20 s in total
(EngineCore pid=9) INFO 11-26 10:20:44 [core.py:402] init engine (profile, create kv cache, warmup model) took 0.07 s (compilation: 0.00 s)
"""  # noqa: E501


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (V0_9, {"weights": 0.58, "compile": 21.4, "profile": 0.47, "capture": 14, "init": 35.9}),
        (V0_32, {"model": 0.670129, "weights": 1.12, "compile": 4.2, "init": 0.07}),
        ("nothing of the kind\n", {}),
    ],
)
def test_the_parts_of_a_start(log: str, expected: dict[str, float]) -> None:
    assert start_parts(log.splitlines()) == expected


def test_of_several_engines_the_slowest_counts() -> None:
    lines = [f"[{i}] Loading weights took {seconds} seconds" for i, seconds in enumerate((1, 3, 2))]
    assert start_parts(lines) == {"weights": 3.0}
