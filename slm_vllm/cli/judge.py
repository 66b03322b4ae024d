"""`slm-vllm judge`: a model grades answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from slm_vllm.cli.options import CONFIG_DIR, JSON, OUTPUT_DIR, OVERRIDES, echo_json, together
from slm_vllm.cli.paths import UserPath
from slm_vllm.errors import ConfigError

if TYPE_CHECKING:
    from slm_vllm.config.schema import Config
    from slm_vllm.judging.session import JudgeOptions

T = TypeVar("T")
_DEFAULT = "run"
_EPILOG = """\b
Examples:
  slm-vllm judge demo_demo_oracle --model demo
  slm-vllm judge outputs/night --base-url http://localhost:8000/v1 --votes 3
  slm-vllm judge check labelled

Give the same command again to resume it."""


class _RunsOrCheck(click.Group):
    """Takes the name of a run where the name of a command could stand."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the command in front that is left out."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Those of the command that is left out."""
        return self.commands[_DEFAULT].collect_usage_pieces(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Likewise, and then the other command."""
        click.Command.format_options(self.commands[_DEFAULT], ctx, formatter)
        self.format_commands(ctx, formatter)


_JUDGE = together(
    click.option("--model", help="The judge: a configuration, folder or repository."),
    click.option(
        "--base-url",
        multiple=True,
        help="Servers of the judge; without --model they are sent chats.",
    ),
    click.option("--api-key-env", help="Environment variable with their API key."),
    click.option(
        "--votes",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Votes on each answer, up to 6, each with the grades in another order.",
    ),
    CONFIG_DIR,
    JSON,
)


@click.group("judge", cls=_RunsOrCheck, epilog=_EPILOG)
def command() -> None:
    """Have a model grade the answers of finished runs: correct, incorrect, not attempted.

    RUN is a name under --output-dir, a path, a glob, or a folder that holds runs (a sweep). The
    judgement is written beside the run, whose own files stay as they are; `compare` and `report`
    read it. `judge check` sets a judge against labels of people.
    """


@command.command(_DEFAULT, hidden=True, epilog=_EPILOG)
@click.argument("words", type=UserPath(), nargs=-1, required=True, metavar="RUN... [KEY=VALUE]...")
@_JUDGE
@OUTPUT_DIR
def judge_runs_command(
    words: tuple[str, ...], output_dir: Path, as_json: bool, **given: Any
) -> None:
    """Have a model grade the answers of finished runs.

    RUN is a name under --output-dir, a path, a glob, or a folder that holds runs. Settings of the
    judge that have no option are given as KEY=VALUE, such as engine.served_model=NAME.
    """
    from slm_vllm.judging.session import judge_runs
    from slm_vllm.judging.tables import judgements_table
    from slm_vllm.rundir.lookup import find_finished

    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    patterns = [word for word in words if word not in overrides]
    if not patterns:
        raise ConfigError("name the runs to judge: slm-vllm judge RUN... --model MODEL")
    config, options = _judge(given, overrides)
    paths = find_finished(patterns, output_dir)
    found = _until_stopped(lambda: judge_runs(paths, config, options))
    if as_json:
        echo_json({"runs": found})
        return
    click.echo(judgements_table(found))


@command.command(
    "check",
    epilog="""\b
Examples:
  slm-vllm judge check labelled
  slm-vllm judge check labelled --model demo --votes 3
  slm-vllm judge check graded_by_us.csv --base-url http://localhost:8000/v1""",
)
@click.argument("file", type=UserPath())
@_JUDGE
@OVERRIDES
def check(file: str, overrides: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Compare a judge, and graders without a model, with human labels.

    FILE has a question, its answers, a prediction and a label (correct, incorrect, not attempted)
    in each row, in any form that datasets have; `labelled` means the 300 that come with the
    package. Without --model and --base-url only what needs no model is checked.
    """
    from slm_vllm.judging.check import check_baselines, check_judge
    from slm_vllm.judging.labelled import read_labelled
    from slm_vllm.judging.tables import check_table

    rows = read_labelled(file)
    if given["model"] is None and not given["base_url"]:
        found = check_baselines(rows)
    else:
        config, options = _judge(given, overrides)
        found = _until_stopped(lambda: check_judge(rows, config, options))
    if as_json:
        echo_json(found.to_json())
        return
    click.echo(check_table(found))


def _until_stopped(work: Callable[[], T]) -> T:
    """Says how to resume where a signal ends the work."""
    from slm_vllm.runs.signals import Interrupted

    try:
        return work()
    except Interrupted as stop:
        click.echo(f"{stop}. All replies so far are kept; the same command resumes it.", err=True)
        raise click.exceptions.Exit(stop.exit_code) from None


def _judge(given: dict[str, Any], overrides: Sequence[str]) -> tuple[Config, JudgeOptions]:
    from slm_vllm.judging.choice import judge_config
    from slm_vllm.judging.session import JudgeOptions

    config = judge_config(
        given["model"],
        given["base_url"],
        api_key_env=given["api_key_env"],
        overrides=overrides,
        config_dir=given["config_dir"],
    )
    return config, JudgeOptions(votes=given["votes"], own_process=True)
