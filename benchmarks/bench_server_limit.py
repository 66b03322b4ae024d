"""How many requests at once: ways to find it, against scripted servers of five kinds.

    python benchmarks/bench_server_limit.py --questions 400

The servers do no work; they wait. Each runs in a process of its own on loopback:

* `batching`: 64 at once, an answer takes 1 s alone and 2 s in a full batch; more wait.
* `one slot`: one at a time, 0.1 s each; more wait.
* `four slots`: four at a time, 0.4 s each; more wait.
* `refusing`: 16 at once, 1 s each; more get 429 with Retry-After: 1.
* `silent 503`: the same with 503 and no header.

`client, N` is a semaphore around the official client with its own ten retries; `engine, N` is our
engine with a fixed bound; `engine, adaptive` is what it does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm_vllm.config.engine import OpenAIConfig
from slm_vllm.config.schema import GenerationConfig, HardwareConfig
from slm_vllm.engines import openai_engine
from slm_vllm.engines.adaptive_limit import AdaptiveLimit
from slm_vllm.engines.openai_engine import OpenAIEngine
from slm_vllm.engines.settings import EngineSettings
from slm_vllm.monitoring.device import Device
from slm_vllm.types import GenerationRequest

# Slots, seconds alone, seconds in a full batch, refusal (status and headers) or None for queueing.
KINDS: dict[str, tuple[int, float, float, str | None]] = {
    "batching": (64, 1.0, 2.0, None),
    "one slot": (1, 0.1, 0.1, None),
    "four slots": (4, 0.4, 0.4, None),
    "refusing": (16, 1.0, 1.0, "429 Too Many\r\nretry-after: 1"),
    "silent 503": (16, 1.0, 1.0, "503 Busy"),
}
CARD = {"id": "m", "object": "model", "owned_by": "vllm"}
ANSWER = json.dumps({"choices": [{"text": "answer", "finish_reason": "stop"}]})


class ScriptedServer:
    """One server; `counts` is shared with the process that measures."""

    def __init__(self, kind: str, counts: Any) -> None:
        self.slots, self.alone, self.full, self.refusal = KINDS[kind]
        self.counts = counts  # refused, most at once, answered
        self.waiting = self.working = 0
        self.free = asyncio.Semaphore(self.slots)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                if head.startswith("get"):
                    await self.send(writer, "200 OK", json.dumps({"data": [CARD]}))
                    continue
                await reader.readexactly(int(head.split("content-length:")[1].split()[0]))
                await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, writer: asyncio.StreamWriter) -> None:
        self.waiting += 1
        self.counts[1] = max(self.counts[1], self.waiting)
        try:
            if self.refusal and self.waiting > self.slots:
                self.counts[0] += 1
                await self.send(writer, self.refusal, "{}")
                return
            async with self.free:
                self.working += 1
                share = self.working / self.slots
                await asyncio.sleep(self.alone + (self.full - self.alone) * share)
                self.working -= 1
            self.counts[2] += 1
            await self.send(writer, "200 OK", ANSWER)
        finally:
            self.waiting -= 1

    async def send(self, writer: asyncio.StreamWriter, status: str, body: str) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        await writer.drain()


def serve(kind: str, counts: Any, ready: Any) -> None:
    async def main() -> None:
        scripted = ScriptedServer(kind, counts)
        server = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


class FixedLimit(AdaptiveLimit):
    """As many as it is told, whatever the server says."""

    def __init__(self, start: int, most: int) -> None:
        super().__init__(most, most)

    def answered(self) -> None:
        self.in_flight -= 1

    def refused(self, number: int) -> bool:
        self.in_flight -= 1
        return True


SETTINGS = EngineSettings(
    model_path=Path("/m"),
    device=Device("cpu", "CPU"),
    hardware=HardwareConfig(name="cpu"),
    generation=GenerationConfig(max_new_tokens=8),
    dtype="float32",
    max_model_len=128,
    model_names=("m",),
)


def requests(count: int) -> Iterator[GenerationRequest]:
    return (GenerationRequest(f"r{i}", [i]) for i in range(count))


def with_engine(url: str, count: int, limit: type[AdaptiveLimit], most: int | None) -> int:
    openai_engine.AdaptiveLimit = limit  # type: ignore[misc]
    with OpenAIEngine(SETTINGS, OpenAIConfig(base_url=(url,), max_in_flight=most)) as engine:
        engine.start()
        return sum(answer.error is not None for answer in engine.stream(requests(count)))


def with_client(url: str, count: int, most: int) -> int:
    import openai

    async def main() -> int:
        room, errors = asyncio.Semaphore(most), 0

        async def one(number: int) -> None:
            nonlocal errors
            async with room:
                try:
                    await client.completions.create(model="m", prompt=[number], max_tokens=8)
                except openai.OpenAIError:
                    errors += 1

        async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=10) as client:
            await asyncio.gather(*(one(number) for number in range(count)))
        return errors

    return asyncio.run(main())


def measure(kind: str, way: str, count: int) -> str:
    context = multiprocessing.get_context("fork")
    counts = context.Array("i", 3)
    mine, its = context.Pipe()
    process = context.Process(target=serve, args=(kind, counts, its), daemon=True)
    process.start()
    url = f"http://127.0.0.1:{mine.recv()}/v1"
    started = time.monotonic()
    who, _, bound = way.partition(", ")
    if who == "client":
        errors = with_client(url, count, int(bound))
    elif bound == "adaptive":
        errors = with_engine(url, count, AdaptiveLimit, None)
    else:
        errors = with_engine(url, count, FixedLimit, int(bound))
    seconds = time.monotonic() - started
    process.kill()
    process.join()
    figures = [f"{seconds:.1f}", f"{count / seconds:.0f}", counts[1], counts[0], errors]
    return "| " + " | ".join(map(str, [kind, way, *figures])) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=400)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument(
        "--ways", default="client,16;client,64;client,256;engine,64;engine,adaptive"
    )
    options = parser.parse_args()
    print("| server | way | s | questions/s | most at once | refused | error rows |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in options.kinds.split(","):
        for way in options.ways.split(";"):
            print(measure(kind, way.replace(",", ", "), options.questions), flush=True)


if __name__ == "__main__":
    main()
