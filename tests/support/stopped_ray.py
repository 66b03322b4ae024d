"""A program that starts Ray and is told to stop meanwhile."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

from slm_vllm.config.compose import compose_config
from slm_vllm.config.engine import RayConfig
from slm_vllm.config.schema import GenerationConfig
from slm_vllm.engines.base import BaseEngine
from slm_vllm.engines.ray_engine import RayEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.monitoring.device import Device
from slm_vllm.runs.signals import StopSignals
from slm_vllm.types import EngineInfo, GenerationRequest


class EndlessEngine(BaseEngine):
    """Is never loaded."""

    def __init__(self, settings: EngineSettings) -> None:
        pass

    def start(self) -> EngineInfo:
        while True:
            time.sleep(60)

    def stream(self, requests: Iterable[GenerationRequest]):  # type: ignore[no-untyped-def]
        raise AssertionError

    def close(self) -> None:
        pass


if __name__ == "__main__":
    hardware = compose_config(["hardware=cpu"]).hardware
    settings = EngineSettings(
        Path("."), Device("cpu", "CPU"), hardware, GenerationConfig(), "float32", 128
    )
    with StopSignals() as signals:
        try:
            with RayEngine(settings, RayConfig(replicas=2), EndlessEngine) as engine:
                engine.start()
        except BaseException:
            # As `evaluate` does; what Ray makes of the interruption differs by the moment.
            sys.exit(128 + (signals.received or 0) if signals.raised else 1)
