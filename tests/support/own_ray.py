"""A program that starts Ray for itself, asks its engine, and says which processes Ray had.

python -m support.own_ray FOLDER
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import psutil

from slm_vllm.config.compose import compose_config
from slm_vllm.config.engine import RayConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.engines.ray_engine import RayEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.monitoring.device import Device
from slm_vllm.types import GenerationRequest
from support.counting_engine import CountingEngine

if __name__ == "__main__":
    hardware = compose_config(["hardware=cpu"]).hardware
    settings = EngineSettings(
        Path("."), Device("cpu", "CPU"), hardware, GenerationConfig(), "float32", 128
    )
    make_engine = partial(CountingEngine, folder=Path(sys.argv[1]))
    requests = [GenerationRequest(f"r{i}", [i]) for i in range(40)]
    with RayEngine(settings, RayConfig(ray_address=None), make_engine) as engine:
        engine.start()
        own = psutil.Process().children(recursive=True)
        answers = len(list(engine.stream(requests)))
    left = psutil.wait_procs(own, timeout=60)[1]
    print(json.dumps({"own": len(own), "answers": answers, "left": [str(p) for p in left]}))
