"""`slm-vllm eval`: one experiment, in one or several modes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from slm_vllm.cli.options import CONFIG_DIR, OVERRIDES, echo_json
from slm_vllm.cli.paths import UserPath
from slm_vllm.errors import ConfigError

if TYPE_CHECKING:
    from slm_vllm.config.schema import Config
    from slm_vllm.runs.options import RunOptions, Then

_EPILOG = """\b
Examples:
  slm-vllm eval --model demo --dataset demo --mode no_context,retriever,oracle
  slm-vllm eval --model Qwen/Qwen3-1.7B --dataset nq --mode retriever --retriever bm25
  slm-vllm eval --model smollm2_360m --dataset my_questions.jsonl --samples 100 \\
      generation.max_new_tokens=64 prompt=few_shot
  slm-vllm eval --model Qwen/Qwen3-1.7B --dataset nq --mode oracle \\
      --engine openai --base-url http://localhost:8000/v1
  slm-vllm eval --model Qwen/Qwen3-1.7B --dataset nq --mode retriever \\
      --engine ray --replicas 8
  slm-vllm eval --model demo --dataset demo --mode retriever --queue gpu
  slm-vllm eval --model demo --dataset demo --mode oracle \\
      --against demo_demo_no_context --until decided

Give the same command again to resume an interrupted run. Exit codes: 0 done,
2 usage or configuration, 3 data, 4 engine, 5 storage, 128 + n stopped by signal n."""


@click.command("eval", epilog=_EPILOG)
@click.option("--model", help="Model configuration, local folder or Hugging Face repository.")
@click.option("--dataset", help="Dataset configuration or file.")
@click.option(
    "--mode", help="no_context, oracle, retriever; several, comma-separated, share one model load."
)
@click.option("--corpus", help="A file or folder to search in place of the dataset's documents.")
@click.option(
    "--retriever", help="Retriever configuration (bm25, dense, hybrid, ...) or a run file."
)
@click.option(
    "--engine", help="vllm: on this machine (default); openai: running servers; ray: a Ray cluster."
)
@click.option(
    "--base-url", multiple=True, help="Server of --engine openai; several share the load."
)
@click.option("--api-key-env", help="Environment variable with the API key of the servers.")
@click.option("--ray-address", help="Ray cluster of --engine ray: auto or HOST:PORT.")
@click.option("--replicas", type=click.IntRange(min=1), help="Number of engines of --engine ray.")
@click.option("--gpus-per-replica", type=float, help="GPUs for each of them (default: 1).")
@click.option("--samples", type=click.IntRange(min=1), help="Only the first N rows.")
@click.option(
    "--against", metavar="RUN", help="A finished run that --until compares this one with."
)
@click.option(
    "--until",
    type=click.Choice(["all", "decided", "worse"]),
    help="decided: stop when the difference from --against is settled; worse: stop only "
    "when this run is certainly below it.",
)
@click.option("--margin", type=float, help="Differences within this margin count as none (0.01).")
@click.option("--name", help="Name of the run and of its folder.")
@click.option("--output-dir", type=UserPath(), help="Where run folders are kept.")
@CONFIG_DIR
@click.option("--overwrite", is_flag=True, help="Replace an earlier run of the same name.")
@click.option(
    "--retry-errors", is_flag=True, help="Ask the failed questions of the earlier run again."
)
@click.option("--strict", is_flag=True, help="Stop at the first bad row or failed request.")
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Say what the command would do, without loading the model or asking.",
)
@click.option("--queue", help="Enqueue the run for a clearml-agent of this ClearML queue.")
@click.option("--queued", is_flag=True, hidden=True, help="Set by --queue, for the agent.")
@click.option("--no-clearml", is_flag=True, help="Do not publish the run to ClearML.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as one JSON object.")
@OVERRIDES
def command(
    mode: str | None,
    name: str | None,
    config_dir: str | None,
    overwrite: bool,
    retry_errors: bool,
    only_plan: bool,
    queue: str | None,
    queued: bool,
    no_clearml: bool,
    as_json: bool,
    overrides: tuple[str, ...],
    **settings: Any,
) -> None:
    """Ask a model the questions of a dataset and score its answers.

    Results are written to OUTPUT_DIR/NAME. Settings that have no option are given as KEY=VALUE;
    `slm-vllm config show` lists them.
    """
    from slm_vllm.config.compose import compose_config
    from slm_vllm.config.run_words import run_words, split_modes
    from slm_vllm.engines.registry import begin_import

    if queue is not None:
        _check_queue(no_clearml or queued or config_dir is not None, only_plan)
    given = run_words(
        settings, split_modes(mode or ""), name=name, overrides=overrides, config_dir=config_dir
    )
    if queued:
        sent = _queued_words()
        given = [[*sent, *words] for words in given]
    configs = [compose_config(words, config_dir) for words in given]
    if settings["margin"] is not None and configs[0].experiment.until != "decided":
        raise ConfigError("--margin goes with --until decided: it says when a difference is none")
    if only_plan or queue is not None:
        _make_then(configs, config_dir)
    if only_plan:
        _plan(configs, overwrite, retry_errors, as_json=as_json)
        return
    if queue is not None:
        flags = ["--overwrite"] * overwrite + ["--retry-errors"] * retry_errors
        _enqueue(configs, given, queue, flags, as_json=as_json)
        return
    with begin_import(configs[0]) as fork_server:
        # Whatever is not needed for that is imported after it.
        from slm_vllm.runs.options import RunOptions

        options = RunOptions(
            overwrite=overwrite,
            retry_errors=retry_errors,
            track=not no_clearml,
            own_process=True,
            fork_server=fork_server,
            then=_make_then(configs, config_dir),
        )
        _run(configs, options, as_json=as_json)


def _check_queue(has_no_place: bool, only_plan: bool) -> None:
    """Refuses what an agent cannot do, or not there."""
    from slm_vllm.config.location import own_configs

    if has_no_place:
        raise ConfigError(
            "--queue goes with neither --no-clearml nor --config-dir: the agent has no such folder"
        )
    if (own := own_configs()) is not None:
        raise ConfigError(
            f"--queue: the agent does not have the configuration in {own}. Give the command in "
            "another folder"
        )
    if only_plan:
        raise ConfigError("--plan goes without --queue: it is about this machine")


def _make_then(configs: list[Config], config_dir: str | None) -> Then | None:
    """What is done after the runs; refuses a judge that there cannot be."""
    from slm_vllm.judging.judge_at_end import judge_at_end

    return judge_at_end(configs, config_dir, own_process=True)


def _plan(configs: list[Config], overwrite: bool, retry_errors: bool, *, as_json: bool) -> None:
    from slm_vllm.runs.command_plan import plan_command

    plan = plan_command(configs, overwrite=overwrite, retry_errors=retry_errors)
    if as_json:
        echo_json(plan.to_json())
    else:
        click.echo(str(plan))
    if any(run.refused for run in plan.runs):
        raise click.exceptions.Exit(ConfigError.exit_code)


def _queued_words() -> list[str]:
    """The settings of the agent's task; its run is published into that very task."""
    import os

    from slm_vllm.tracking.clearml.arrange import TASK_VARIABLE
    from slm_vllm.tracking.clearml.queue import take_settings

    task, words = take_settings()
    os.environ[TASK_VARIABLE] = task
    return words


def _enqueue(
    configs: list[Config], words: list[list[str]], queue: str, flags: list[str], *, as_json: bool
) -> None:
    from slm_vllm.tracking.clearml.queue import enqueue_runs

    tasks = enqueue_runs(configs, words, queue, flags)
    if as_json:
        echo_json({"queue": queue, "tasks": tasks})
        return
    for task in tasks:
        click.echo(f"{task['name']} is task {task['task']} in queue {queue}: {task['url']}")


def _run(configs: list[Config], options: RunOptions, *, as_json: bool) -> None:
    from slm_vllm.reporting.table import results_table
    from slm_vllm.runs.session import evaluate
    from slm_vllm.runs.signals import Interrupted

    try:
        results = evaluate(configs, options)
    except Interrupted as stop:
        click.echo(stop.message(overwrite=options.overwrite), err=True)
        raise click.exceptions.Exit(stop.exit_code) from None
    if as_json:
        echo_json({"runs": results})
        return
    click.echo(results_table(results))
    for config in configs:
        click.echo(f"Written to {config.experiment.folder}")
