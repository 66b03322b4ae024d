"""The `slm-vllm` command: finds the module of a subcommand only when it is called."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from slm_vllm.cli.process import describe, give_up_output, prepare_process
from slm_vllm.errors import EngineError, SlmVllmError, StorageError
from slm_vllm.process_exit import exit_process, prepare_exit
from slm_vllm.version import __version__

# Name, module:object and the line of --help; kept here so that --help imports no subcommand.
COMMANDS = {
    "eval": (
        "slm_vllm.cli.eval:command",
        "Run an experiment: ask a model the questions of a dataset.",
    ),
    "sweep": ("slm_vllm.cli.sweep:command", "Run a grid of models, datasets, modes, retrievers."),
    "data": ("slm_vllm.cli.data:data", "Convert, check and describe datasets."),
    "index": ("slm_vllm.cli.index:index", "Build, search and evaluate retrieval indexes."),
    "s3": ("slm_vllm.cli.s3:command", "List a bucket; pull, push and convert datasets."),
    "clearml": ("slm_vllm.cli.clearml:command", "Check ClearML; publish runs it does not have."),
    "config": ("slm_vllm.cli.config:command", "List, show and validate configurations."),
    "new": ("slm_vllm.cli.new:command", "Create a plug-in: dataset, metric, mode, ..."),
    "judge": ("slm_vllm.cli.judge:command", "Have a model grade the answers of runs."),
    "compare": ("slm_vllm.cli.compare:command", "Compare runs question by question."),
    "report": ("slm_vllm.cli.report:command", "Write runs as one HTML page with plots."),
    "bench": ("slm_vllm.cli.bench:command", "Benchmark models on this machine."),
    "doctor": ("slm_vllm.cli.doctor:command", "Check this machine and say what to fix."),
    "adopt": ("slm_vllm.cli.adopt:command", "Import a checkout of the earlier scripts."),
    "explain": (
        "slm_vllm.cli.adopt:explain_command",
        "Show what replaces a command of the earlier scripts.",
    ),
    "runs": ("slm_vllm.cli.runs:command", "List, watch, show, follow and stop runs."),
}


class LazyGroup(click.Group):
    """A group whose subcommands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the module of a subcommand and takes its command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command = getattr(import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Adds the nearest command to the error about an unknown one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from slm_vllm.nearest import nearest

            ctx.fail(f"No such command '{args[0]}'. {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


_EPILOG = """\b
Example:
  slm-vllm eval --model demo --dataset demo --mode no_context,retriever,oracle"""


@click.group(
    cls=LazyGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="slm-vllm")
def cli() -> None:
    """Evaluate small language models on question answering, fast, with vLLM."""


def main() -> None:
    """Entry point: turns errors into a message and an exit code."""
    prepare_exit()
    prepare_process()
    try:
        # Without its standalone mode click returns the code of an Exit instead of raising it.
        code = cli.main(prog_name="slm-vllm", standalone_mode=False)
        sys.stdout.flush()
    except click.Abort:
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except SlmVllmError as error:
        click.echo(f"Error: {error}", err=True)
        code = error.exit_code
    except BrokenPipeError:
        # The reader of our output (head, less) has gone.
        give_up_output()
        code = 141
    except OSError as error:
        give_up_output()
        click.echo(f"Error: {describe(error)}", err=True)
        code = StorageError.exit_code
    except MemoryError:
        click.echo("Error: there is not enough memory for this on this machine", err=True)
        code = EngineError.exit_code
    except Exception as error:
        from slm_vllm.plugins import PluginError, fault

        message = fault(error)
        if message is None:
            raise
        click.echo(f"Error: {message}", err=True)
        code = PluginError.exit_code
    exit_process(code)
