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
V0_26 = """\
(EngineCore pid=9) INFO 11-26 10:20:42 [default_loader.py:430] Loading weights took 0.11 seconds
(EngineCore pid=9) INFO 11-26 10:20:42 [model_runner.py:305] Model loading took 0.25 GiB and 0.913256 seconds
(EngineCore pid=9) INFO 11-26 10:20:45 [backends.py:1155] Dynamo bytecode transform time: 2.60 s
(EngineCore pid=9) INFO 11-26 10:20:46 [backends.py:293] Directly load the compiled graph(s) for compile range (1, 8192) from the cache, took 1.201 s
(EngineCore pid=9) INFO 11-26 10:20:46 [monitor.py:20] torch.compile took 4.20 s in total
(EngineCore pid=9) INFO 11-26 10:20:46 [monitor.py:82] Initial profiling/warmup run took 0.35 s
(EngineCore pid=9) INFO 11-26 10:20:50 [model_runner.py:747] Graph capturing finished in 3 secs, took 0.51 GiB
(EngineCore pid=9) INFO 11-26 10:21:05 [core.py:340] init engine (profile, create kv cache, warmup model) took 23.95 s (compilation: 4.20 s)
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
        (
            V0_26,
            {"weights": 0.11, "compile": 4.2, "profile": 0.35, "capture": 3.0, "init": 23.95},
        ),
        (V0_32, {"model": 0.670129, "weights": 1.12, "compile": 4.2, "init": 0.07}),
        ("nothing of the kind\n", {}),
    ],
)
def test_the_parts_of_a_start(log: str, expected: dict[str, float]) -> None:
    assert start_parts(log.splitlines()) == expected


def test_of_several_engines_the_slowest_counts() -> None:
    lines = [f"[{i}] Loading weights took {seconds} seconds" for i, seconds in enumerate((1, 3, 2))]
    assert start_parts(lines) == {"weights": 3.0}
