"""Who is asked what, and who is blamed: replicas that live in this process and die as drawn."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.config.schema import GenerationConfig, HardwareConfig
from slm_vllm.engines.replica import Exchange, ReplicaInfo, versions
from slm_vllm.engines.replicated import Link, ReplicaLostError, ReplicatedEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.errors import EngineDiedError
from slm_vllm.monitoring.device import Device
from slm_vllm.types import Completion, EngineInfo, GenerationRequest

BATCH = 4
WINDOW = 2 * BATCH
POISON = 666
SETTINGS = EngineSettings(
    model_path=Path("/m"),
    device=Device("cpu", "CPU"),
    hardware=HardwareConfig(name="cpu", engine_args={"max_num_seqs": BATCH}),
    generation=GenerationConfig(),
    dtype="float32",
    max_model_len=128,
)


class DrawnLink(Link):
    """Answers some of what it has at each exchange; dies of poison, and now and then for nothing.

    Args:
        draw: What is drawn from.
        asked: Counts what was handed to any replica.
        accidents: Those that are still to come, of all replicas.
    """

    def __init__(self, draw: random.Random, asked: Counter[str], accidents: list[int]) -> None:
        self.draw, self.asked, self.accidents = draw, asked, accidents
        self.has: list[GenerationRequest] = []
        self.is_loaded = self.is_killed = False

    def exchange(self, requests: list[GenerationRequest], wait: float) -> None:
        assert not self.is_killed
        self.has += requests
        self.asked.update(request.request_id for request in requests)
        assert len(self.has) <= WINDOW

    def result(self) -> ReplicaInfo | Exchange:
        assert not self.is_killed
        if not self.is_loaded:
            self.is_loaded = True
            return ReplicaInfo("here", 1, versions(), EngineInfo("drawn", 128))
        self.draw.shuffle(self.has)
        n = self.draw.randint(0, len(self.has))
        done, self.has = self.has[:n], self.has[n:]
        answered = []
        for request in done:
            if request.prompt_token_ids == [POISON]:
                raise ReplicaLostError("poison")
            answered.append(Completion(request.request_id, "fine", "stop", 1, 1))
        if self.accidents and self.draw.random() < 0.1:
            self.accidents.pop()
            if self.draw.random() < 0.5:  # what it answered is lost with it
                raise ReplicaLostError("an accident")
            return Exchange(answered, 1, "an accident of its engine")
        return Exchange(answered, 1)

    def forget_prompts(self) -> None:
        """Nothing to do."""

    def end(self) -> None:
        """Nothing to do."""

    def kill(self) -> None:
        self.is_killed = True


class LeakingLink(DrawnLink):
    """Answers one at a time, and is ended when it has answered a full window and some more."""

    answered = 0

    def result(self) -> ReplicaInfo | Exchange:
        if not self.is_loaded:
            return super().result()
        if self.answered == WINDOW + 4:
            raise ReplicaLostError("out of memory")
        self.answered += 1
        return Exchange([Completion(self.has.pop(0).request_id, "fine", "stop", 1, 1)], 1)


class DrawnReplicas(ReplicatedEngine):
    kind: type[DrawnLink] = DrawnLink

    def __init__(self, replicas: int, seed: int = 0, accidents: int = 0) -> None:
        super().__init__(SETTINGS, make_engine=lambda settings: self)
        self.n, self.draw = replicas, random.Random(seed)
        self.asked: Counter[str] = Counter()
        self.accidents = [0] * accidents
        self.opened: list[DrawnLink] = []

    def _connect(self) -> list[list[int]]:
        return [[number] for number in range(self.n)]

    def _open(self, number: int, times_replaced: int) -> Link:
        self.opened.append(self.kind(self.draw, self.asked, self.accidents))
        return self.opened[-1]

    def _ready(self, links: Sequence[Link], seconds: float) -> list[Link]:
        return self.draw.sample(list(links), self.draw.randint(1, len(links)))

    def _describe(self, replicas: list[EngineInfo], hosts: list[str]) -> EngineInfo:
        assert hosts == ["here"]
        return replicas[0]

    def _disconnect(self) -> None:
        assert all(link.is_killed for link in self.opened)


@settings(max_examples=200, deadline=None)
@given(
    replicas=st.integers(1, 4),
    rows=st.integers(0, 80),
    poisons=st.sets(st.integers(0, 79), max_size=3),
    accidents=st.integers(0, 3),
    seed=st.integers(0, 2**32),
)
def test_nothing_is_lost_doubled_or_blamed_without_guilt(
    replicas: int, rows: int, poisons: set[int], accidents: int, seed: int
) -> None:
    engine = DrawnReplicas(replicas, seed, accidents)
    requests = [GenerationRequest(f"r{i}", [POISON if i in poisons else 1]) for i in range(rows)]
    found: dict[str, Completion] = {}
    with engine:
        engine.start()
        try:
            for completion in engine.stream(requests):
                assert completion.request_id not in found
                found[completion.request_id] = completion
        except EngineDiedError:
            # Bounded: accidents and poison one upon the other, with little work between them.
            assert len(engine.opened) >= 1 + 3
        else:
            assert len(found) == rows
    blamed = {name for name, one in found.items() if one.error}
    # An accident while a suspect is asked alone cannot be told from its guilt.
    innocent = blamed - {f"r{i}" for i in poisons}
    assert len(innocent) <= accidents - len(engine.accidents)
    if not accidents:
        assert not innocent
    # Once, again after a loss, and once alone for each loss that followed.
    losses = len(engine.opened) - replicas
    assert max(engine.asked.values(), default=0) <= 1 + max(losses, 0) + 1


def test_one_that_does_a_windows_work_each_time_is_replaced_as_often_as_it_takes() -> None:
    engine = DrawnReplicas(1)
    engine.kind = LeakingLink
    with engine:
        engine.start()
        found = list(engine.stream(GenerationRequest(f"r{i}", [1]) for i in range(200)))
    assert len({completion.request_id for completion in found}) == len(found) == 200
    assert not any(completion.error for completion in found)
    assert len(engine.opened) > 10


def test_one_that_dies_at_once_is_replaced_three_times() -> None:
    engine = DrawnReplicas(1)
    with engine:
        engine.start()
        with pytest.raises(EngineDiedError, match="All replicas are lost.*poison"):
            list(engine.stream(GenerationRequest(f"r{i}", [POISON]) for i in range(200)))
    assert len(engine.opened) == 1 + 3
