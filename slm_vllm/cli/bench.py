"""`slm-vllm bench`: how fast models answer on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slm_vllm.cli.options import CONFIG_DIR, JSON, OVERRIDES, echo_json
from slm_vllm.cli.paths import UserPath
from slm_vllm.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from slm_vllm.bench.plan import Plan


@click.group("bench")
def command() -> None:
    """Measure the throughput of models on this machine, and compare machines.

    \b
    Example:
      slm-vllm bench throughput --models demo --questions 50
    """


_EPILOG = """\b
Examples:
  slm-vllm bench throughput --models qwen_0.6b,qwen_1.7b --input-len 256 --output-len 32
  slm-vllm bench throughput --models demo --dataset demo --baseline vllm,transformers
  slm-vllm bench throughput --models demo --baseline vllm engine.replicas_per_gpu=2
  slm-vllm bench throughput --models ./shapes/qwen3-4b --load-format dummy --json > h200.json

Each model runs in a process of its own: a warm-up, then the repeats, of which the median, smallest
and largest are shown. Without --dataset the prompts are random tokens that share no prefix and
every answer has --output-len tokens. "start" is the time from the start of the process to the first
answer, "first" from the first request of a repeat to its first answer, p50 and p99 from the
submission of a request to its answer at full load. With --baseline the engines take turns, and none
is called faster when their repeats overlap or when other processes used more than a tenth of the
cores."""


@command.command("throughput", epilog=_EPILOG)
@click.option("--models", required=True, help="Configurations, folders or repositories: a,b,c.")
@click.option("--input-len", type=click.IntRange(min=1), help="Tokens of each prompt.  [128]")
@click.option("--output-len", type=click.IntRange(min=1), help="Tokens of each answer.  [32]")
@click.option("--dataset", help="Ask the questions of a dataset instead of random tokens.")
@click.option("--questions", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help="Measurements of each engine, in alternating order.  [2 with --baseline, else 1]",
)
@click.option("--baseline", help="Also measure peers: vllm, transformers, or both.")
@click.option(
    "--load-format",
    type=click.Choice(["auto", "dummy"]),
    default="auto",
    show_default=True,
    help="dummy: random weights, made from config.json alone.",
)
@CONFIG_DIR
@JSON
@OVERRIDES
def throughput(models: str, as_json: bool, **given: Any) -> None:
    """Measure questions and tokens per second of each model."""
    from slm_vllm.bench.rounds import verdicts
    from slm_vllm.bench.table import merge, throughput_table
    from slm_vllm.bench.throughput import measure_all

    names = list(dict.fromkeys(part.strip() for part in models.split(",") if part.strip()))
    if not names:
        raise ConfigError("--models is empty: name at least one, such as --models demo")
    plans = [plan for name in names for plan in _plans(name, given)]
    rounds = given["rounds"] or (2 if given["baseline"] else 1)
    results = measure_all(plans, lambda text: click.echo(text, err=True), rounds=rounds)
    if as_json:
        echo_json(results)
    else:
        click.echo(throughput_table(merge([results])))
        for line in verdicts(results["rows"], results["machine"]["cores"]):
            click.echo(line)
    failed = sum("error" in row for row in results["rows"])
    if failed:
        raise EngineError(f"{failed} of {len(plans)} measurements failed")


@command.command("show")
@click.argument("files", nargs=-1, required=True, type=UserPath(path_type=Path))
@JSON
def show(files: tuple[Path, ...], as_json: bool) -> None:
    """Put results of several machines into one table.

    \b
    Example:
      slm-vllm bench show v100.json h200.json
    """
    from slm_vllm.bench.table import merge, read_results, throughput_table

    rows = merge([read_results(path) for path in files])
    if as_json:
        echo_json({"rows": rows})
    else:
        click.echo(throughput_table(rows))


def _plans(model: str, given: dict[str, Any]) -> list[Plan]:
    """One plan for each engine; a wrong word ends here, before anything is measured."""
    from slm_vllm.bench.plan import Plan, parse_baselines
    from slm_vllm.config.compose import compose_config
    from slm_vllm.config.engine import VllmConfig
    from slm_vllm.config.run_words import run_words

    folder, dataset = given["config_dir"], given["dataset"]
    if dataset and (given["input_len"] or given["output_len"]):
        raise ConfigError(
            "--dataset and --input-len or --output-len exclude one another; the answers to a "
            "dataset are limited by generation.max_new_tokens=N"
        )
    settings = {"model": model, "dataset": dataset}
    (words,) = run_words(settings, [], overrides=given["overrides"], config_dir=folder)
    engine = compose_config(words, folder).engine
    if not isinstance(engine, VllmConfig):
        raise ConfigError(f"bench throughput measures engine.name=vllm, not {engine.name}")
    return [
        Plan(
            model=model,
            words=tuple(words),
            config_dir=folder,
            engine=engine,
            dummy=given["load_format"] == "dummy",
            questions=given["questions"],
            repeats=given["repeats"],
            input_len=None if dataset else given["input_len"] or 128,
            output_len=None if dataset else given["output_len"] or 32,
        )
        for engine in parse_baselines(given["baseline"])
    ]
