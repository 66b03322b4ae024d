"""Pull and push of one large file against plain boto3: throughput and peak memory.

    python benchmarks/bench_s3.py --megabytes 1024 --server moto

Starts an S3 server on this machine in a process of its own. Each transfer runs in a fresh process,
the two programs in turns. The file is new to the bucket each time; both pull what slm-vllm pushed.
`slm-vllm` also hashes and checks every file, which plain boto3 (`upload_file`, `download_file`,
defaults) does not.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve()
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent.parent / "tests")]

from support.s3_servers import ACCESS, SECRET, moto, nanio, serving, settings_for  # noqa: E402


def transfer(program: str, direction: str, endpoint: str, path: Path) -> None:
    """One transfer in this process; prints seconds and MiB."""
    from slm_vllm.storage.bucket import Bucket

    bucket = Bucket.open(settings_for(endpoint, "bench"))
    if program == "boto3":
        import boto3
        from botocore.config import Config

        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=ACCESS,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
        run = {
            "push": lambda: client.upload_file(str(path), "bench", program),
            "pull": lambda: client.download_file("bench", "slm-vllm", str(path)),
        }[direction]
    else:
        from slm_vllm.storage.download import download
        from slm_vllm.storage.upload import upload

        run = {
            "push": lambda: upload(bucket, path, program),
            "pull": lambda: download(bucket, "slm-vllm", path),
        }[direction]
    bucket.check()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.perf_counter()
    run()
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu = resource.getrusage(resource.RUSAGE_SELF)
    used = cpu.ru_utime + cpu.ru_stime
    print(json.dumps({"s": seconds, "peak": peak / 1024, "before": before / 1024, "cpu": used}))


def in_a_process(program: str, direction: str, endpoint: str, path: Path) -> dict[str, float]:
    words = [sys.executable, str(HERE), "--one", program, direction, endpoint, str(path)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=1024, help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--server", choices=["moto", "nanio"], default="moto")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        program, direction, endpoint, path = args.one
        transfer(program, direction, endpoint, Path(path))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, target = folder / "source", folder / "target"
        with source.open("wb") as file:
            for _ in range(args.megabytes):
                file.write(os.urandom(1 << 20))
        words = moto() if args.server == "moto" else nanio(folder / "nanio")
        env = {**os.environ, "NANIO_ACCESS_KEY": ACCESS, "NANIO_SECRET_KEY": SECRET}
        found: dict[tuple[str, str], list[dict[str, float]]] = {}
        with serving(words, env) as endpoint:
            from slm_vllm.storage.bucket import Bucket

            client = Bucket.open(settings_for(endpoint, "bench")).client
            client.create_bucket(Bucket="bench")
            for turn in range(args.rounds):
                programs = ["slm-vllm", "boto3"] if turn % 2 == 0 else ["boto3", "slm-vllm"]
                for direction in ("push", "pull"):
                    for program in programs:
                        if direction == "push":
                            client.delete_object(Bucket="bench", Key=program)
                        target.unlink(missing_ok=True)
                        path = source if direction == "push" else target
                        one = in_a_process(program, direction, endpoint, path)
                        found.setdefault((direction, program), []).append(one)
        print(f"load average {os.getloadavg()[0]:.1f} at the end, {args.rounds} rounds, medians")
        for direction in ("pull", "push"):
            pairs = zip(found[direction, "boto3"], found[direction, "slm-vllm"], strict=True)
            ratios = sorted(theirs["s"] / ours["s"] for theirs, ours in pairs)
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{direction}: {statistics.median(ratios):.2f} times boto3's rate ({each})")
        print("| | program | MB/s | all rounds, MB/s | CPU s | peak RSS MiB | before MiB |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for (direction, program), rounds in sorted(found.items()):
            rates = [args.megabytes * 1.048576 / one["s"] for one in rounds]
            cpu, peak, before = (
                statistics.median(one[name] for one in rounds) for name in ("cpu", "peak", "before")
            )
            each = ", ".join(f"{rate:.0f}" for rate in rates)
            print(
                f"| {direction} | {program} | {statistics.median(rates):.0f} | {each} | {cpu:.1f} "
                f"| {peak:.0f} | {before:.0f} |"
            )


if __name__ == "__main__":
    main()
