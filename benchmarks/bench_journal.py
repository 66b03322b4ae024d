"""What the journal costs a run: its own lines written again, with fsync, against its wall time.

    python benchmarks/bench_journal.py outputs/RUN

Two runs of the same kind differ by more than a journal costs, so the cost is measured alone: the
answers of a finished run are appended to a new journal on the same disk, which is put on the disk
after every 64 (a run of more than 64 answers a second does it less often).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from slm_vllm.rundir.journal import Journal

ANSWERS_A_SYNC = 64


def append_all(records: list[dict[str, object]], folder: Path) -> float:
    """Seconds to journal the records."""
    started = time.perf_counter()
    with Journal(folder / "predictions.jsonl") as journal:
        for number, record in enumerate(records, start=1):
            journal.append(record)
            if number % ANSWERS_A_SYNC == 0:
                journal.sync()
    return time.perf_counter() - started


def main() -> None:
    """Prints the seconds of each round and the share of the run's generation."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    lines = (args.run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    generate = json.loads((args.run / "results.json").read_text())["timing"]["generate"]
    seconds = []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory(dir=args.run) as folder:
            seconds.append(append_all(records, Path(folder)))
    median = statistics.median(seconds)
    print(f"{len(records)} answers, journal {[round(s, 4) for s in seconds]} s")
    print(f"median {1e6 * median / len(records):.0f} us an answer")
    print(f"generation {generate:.1f} s: the journal is {100 * median / generate:.3f} % of it")


if __name__ == "__main__":
    main()
