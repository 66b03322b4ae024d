"""SIGKILL at random moments: is any answer lost, doubled or asked again?

Runs the real command once undisturbed. Then, in fresh folders, it is started and killed again and
again, at moments drawn from a seed and spread over start, load, generation and the final write,
and at last left to finish. After every kill and at the end of every folder it is verified that
what the journal held before is still there byte for byte, that no key journaled before a kill is
journaled again, and that the final predictions are those of the undisturbed run.

    python benchmarks/bench_kills.py --kills 30 --samples 40

Exits with 1 if anything was lost, doubled or changed.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
_RUN = "demo_demo_no_context"
# What one folder goes through before it may finish.
_PLAN = ("time", "loading", "generating", "generating", "final write")
_POLL_SECONDS = 0.002
_ATTEMPT_SECONDS = 900.0
_ORPHAN_SECONDS = 15.0


class Violation(Exception):
    """A promise of the run folder was broken."""


@dataclass
class Moments:
    """When things happen in an undisturbed run, in seconds."""

    load: float = 0.0
    whole: float = 0.0
    final_write: float = 0.0


@dataclass
class Kill:
    """One start that was killed.

    Attributes:
        folder: Number of the folder.
        aim: Where in the run the kill was meant to hit.
        hit: Where it did.
        seconds: Since the process began.
        before: Answers in the journal when the process began.
        after: Answers after the kill.
        torn: Bytes of a last line that was not whole.
        orphans: Child processes that outlived it, and had to be ended.
    """

    folder: int
    aim: str
    hit: str
    seconds: float
    before: int
    after: int
    torn: int
    orphans: int


@dataclass
class Watch:
    """Looks at a run folder from outside."""

    path: Path
    samples: int

    def phase(self, pid: int) -> str:
        """The phase that this very process last wrote, "" before its first."""
        try:
            state = json.loads((self.path / "state.json").read_text())
        except (OSError, ValueError):
            return ""
        return str(state["phase"]) if state.get("pid") == pid else ""

    def journal(self) -> bytes:
        """The whole journal, a torn end included."""
        try:
            return (self.path / "predictions.jsonl").read_bytes()
        except FileNotFoundError:
            return b""

    def answers(self) -> int:
        """Whole lines in the journal."""
        return self.journal().count(b"\n")

    def place(self, pid: int) -> str:
        """What the process is doing."""
        phase = self.phase(pid)
        if phase == "generating" and self.answers() >= self.samples:
            return "final write"
        return {"": "start", "finished": "shutdown"}.get(phase, phase)


def whole_lines(journal: bytes) -> bytes:
    """The journal without a torn last line."""
    return journal[: journal.rfind(b"\n") + 1]


def keys(journal: bytes) -> list[str]:
    """The keys of a journal's whole lines."""
    return [json.loads(line)["key"] for line in whole_lines(journal).splitlines()]


def command(output_dir: Path, samples: int, words: list[str]) -> list[str]:
    return [
        *(sys.executable, "-m", "slm_vllm", "eval"),
        *("--model", "demo", "--dataset", "demo", "--mode", "no_context"),
        *("--samples", str(samples), "--no-clearml", "--output-dir", str(output_dir)),
        f"cache_dir={REPOSITORY / '.cache'}",
        "generation.max_new_tokens=16",
        # In 16 bit a CPU gives some other answers in other batches, as those after a kill are.
        "model.dtype=float32",
        # Few at a time, so that answers come one after the other.
        "hardware.engine_args.max_num_seqs=4",
        *words,
    ]


def start(output_dir: Path, samples: int, words: list[str]) -> subprocess.Popen[bytes]:
    log = (output_dir / "console.txt").open("ab")
    try:
        return subprocess.Popen(
            command(output_dir, samples, words),
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    finally:
        log.close()


def undisturbed(
    output_dir: Path, samples: int, words: list[str]
) -> tuple[Moments, list[tuple[str, str]]]:
    """Runs once to the end and takes the times."""
    output_dir.mkdir(parents=True)
    watch, moments = Watch(output_dir / _RUN, samples), Moments()
    process = start(output_dir, samples, words)
    started, complete = time.monotonic(), 0.0
    while process.poll() is None:
        now = time.monotonic()
        if now - started > _ATTEMPT_SECONDS:
            process.kill()
            process.wait()
            raise SystemExit(f"the undisturbed run did not end; see {output_dir}")
        place = watch.place(process.pid)
        if place == "generating" and not moments.load:
            moments.load = now - started
        elif place == "final write" and not complete:
            complete = now
        elif place == "shutdown" and complete and not moments.final_write:
            moments.final_write = now - complete
        time.sleep(_POLL_SECONDS)
    moments.whole = time.monotonic() - started
    if process.returncode != 0:
        said = (output_dir / "console.txt").read_text(errors="replace")
        raise SystemExit(f"the undisturbed run ended with {process.returncode}:\n{said}")
    moments.final_write = max(moments.final_write, 0.05)
    return moments, predictions(watch.path)


def predictions(folder: Path) -> list[tuple[str, str]]:
    frame = pl.read_parquet(folder / "predictions.parquet")
    return list(frame.select("question_id", "prediction").iter_rows())


def moment(
    aim: str, watch: Watch, pid: int, moments: Moments, draw: random.Random
) -> Callable[[float], bool]:
    """A test of the seconds since the start that says when to kill.

    Args:
        aim: One of `_PLAN`.
        watch: The run folder.
        pid: The process.
        moments: Times of the undisturbed run.
        draw: Source of chance.
    """
    if aim == "time":
        after = draw.uniform(0.0, moments.whole)
        return lambda seconds: seconds >= after
    if aim == "loading":
        reached: Callable[[], bool] = lambda: watch.phase(pid) == "loading"  # noqa: E731
        delay = draw.uniform(0.0, moments.load * 0.9)
    elif aim == "generating":
        # Up to the last answer but one, so that there is something left to be killed in.
        left = max(1, watch.samples - watch.answers() - 1)
        wanted = watch.answers() + draw.randint(1, max(1, left // 2))
        reached = lambda: watch.answers() >= wanted  # noqa: E731
        delay = draw.uniform(0.0, 0.1)
    else:
        reached = lambda: watch.place(pid) == "final write"  # noqa: E731
        delay = draw.uniform(0.0, moments.final_write)
    since: list[float] = []

    def due(seconds: float) -> bool:
        if not since and reached():
            since.append(seconds)
        return bool(since) and seconds >= since[0] + delay

    return due


def attempt(
    output_dir: Path,
    number: int,
    aim: str,
    moments: Moments,
    samples: int,
    draw: random.Random,
    words: list[str],
) -> Kill | None:
    """Starts the command and kills it; None if it finished before.

    Raises:
        Violation: The kill, or the start before it, harmed the journal.
    """
    watch = Watch(output_dir / _RUN, samples)
    earlier = whole_lines(watch.journal())
    process = start(output_dir, samples, words)
    started = time.monotonic()
    due = moment(aim, watch, process.pid, moments, draw)
    children: list[psutil.Process] = []
    try:
        while process.poll() is None:
            seconds = time.monotonic() - started
            if due(seconds):
                hit = watch.place(process.pid)
                children = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                break
            if seconds > _ATTEMPT_SECONDS:
                raise Violation(f"aimed at {aim}: the command did not end in {seconds:.0f} s")
            time.sleep(_POLL_SECONDS)
    except psutil.NoSuchProcess:
        pass
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
    orphans = end_orphans(children)
    journal = watch.journal()
    check_growth(earlier, journal)
    if process.returncode == 0:
        return None
    if process.returncode != -9:
        raise Violation(f"the command ended with {process.returncode}; see {output_dir}")
    torn = len(journal) - len(whole_lines(journal))
    counts = len(keys(earlier)), len(keys(journal))
    return Kill(number, aim, hit, seconds, *counts, torn, orphans)


def end_orphans(children: list[psutil.Process]) -> int:
    """Waits for children of a killed process, ends what is left and counts it."""
    _, left = psutil.wait_procs(children, timeout=_ORPHAN_SECONDS)
    for process in left:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    return len(left)


def check_growth(earlier: bytes, journal: bytes) -> None:
    """The journal was only appended to, with new keys."""
    if not journal.startswith(earlier):
        raise Violation("lines that were journaled before the kill are gone or changed")
    found = keys(journal)
    doubled = [key for key, count in Counter(found).items() if count > 1]
    if doubled:
        raise Violation(f"{len(doubled)} keys were journaled again: {doubled[:3]}")


def finish(
    output_dir: Path, samples: int, expected: list[tuple[str, str]], words: list[str]
) -> None:
    """Lets the run end (it may have) and compares it with the undisturbed one."""
    watch = Watch(output_dir / _RUN, samples)
    earlier = whole_lines(watch.journal())
    process = start(output_dir, samples, words)
    try:
        code = process.wait(timeout=_ATTEMPT_SECONDS)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code != 0:
        raise Violation(f"the last start ended with {code}; see {output_dir}")
    journal = watch.journal()
    check_growth(earlier, journal)
    if len(keys(journal)) != samples or whole_lines(journal) != journal:
        raise Violation(f"{len(keys(journal))} answers in the journal instead of {samples}")
    found = predictions(watch.path)
    if [name for name, _ in found] != [name for name, _ in expected]:
        raise Violation("rows were lost, doubled or put in another order")
    differing = [name for (name, a), (_, b) in zip(found, expected, strict=True) if a != b]
    if differing:
        raise Violation(f"{len(differing)} predictions differ: {differing[:5]}")
    results = json.loads((watch.path / "results.json").read_text())
    if results["counts"]["total"] != samples:
        raise Violation(f"results.json counts {results['counts']['total']} rows, not {samples}")


def table(kills: list[Kill]) -> str:
    lines = [
        "| folder | aimed at | hit | after s | answers before | answers after | torn bytes "
        "| processes left |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {k.folder} | {k.aim} | {k.hit} | {k.seconds:.2f} | {k.before} | {k.after} | {k.torn} "
        f"| {k.orphans} |"
        for k in kills
    ]
    hits = Counter(kill.hit for kill in kills)
    lines += ["", "Hit: " + ", ".join(f"{place} {n}" for place, n in hits.most_common())]
    return "\n".join(lines)


def run_kills(
    base: Path, wanted: int, samples: int, draw: random.Random, words: list[str]
) -> list[Kill]:
    """All of it; prints each folder as it is verified."""
    moments, expected = undisturbed(base / "undisturbed", samples, words)
    print(
        f"undisturbed: {moments.whole:.1f} s, first generation after {moments.load:.1f} s, "
        f"final write {moments.final_write:.2f} s",
        flush=True,
    )
    kills: list[Kill] = []
    number = 0
    while len(kills) < wanted:
        number += 1
        if number > 3 * wanted:
            raise Violation("too many starts finished before they were killed")
        output_dir = base / f"killed-{number}"
        output_dir.mkdir()
        for aim in _PLAN:
            if len(kills) >= wanted:
                break
            kill = attempt(output_dir, number, aim, moments, samples, draw, words)
            if kill is not None:
                kills.append(kill)
            if kill is None or kill.hit == "shutdown":
                break  # nothing is left in this folder for the other kills to hit
        finish(output_dir, samples, expected, words)
        print(f"folder {number} verified; {len(kills)} kills so far", flush=True)
    return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="Keep the run folders here (must not exist).")
    parser.add_argument("words", nargs="*", help="Further words for `slm-vllm eval`.")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        base = arguments.keep or Path(temporary) / "runs"
        base.mkdir(parents=True)
        try:
            kills = run_kills(base, arguments.kills, arguments.samples, draw, arguments.words)
        except Violation as violation:
            print(f"BROKEN: {violation}", file=sys.stderr)
            sys.exit(1)
    print(table(kills))
    print(f"{len(kills)} kills: nothing lost, doubled, changed or asked again")


if __name__ == "__main__":
    main()
