"""`slm-vllm config`: lists, shows and validates configurations."""

from __future__ import annotations

import click

from slm_vllm.cli.options import CONFIG_DIR, JSON, OVERRIDES, echo_json


@click.group("config")
def command() -> None:
    """List, show and validate configurations.

    \b
    Example:
      slm-vllm config show model=qwen_1.7b dataset=nq
    """


@command.command("list", epilog="Example: slm-vllm config list model")
@click.argument("group", required=False)
@CONFIG_DIR
@JSON
def list_choices(group: str | None, config_dir: str | None, as_json: bool) -> None:
    """List the choices of every group, or of GROUP."""
    from slm_vllm.config.compose import group_choices
    from slm_vllm.config.overrides import GROUPS
    from slm_vllm.errors import ConfigError
    from slm_vllm.nearest import nearest

    if group is not None and group not in GROUPS:
        raise ConfigError(f"there is no group '{group}'. {nearest(group, GROUPS)}")
    found = {
        name: list(group_choices(name, config_dir)) for name in GROUPS if group in (None, name)
    }
    if as_json:
        echo_json(found)
        return
    for name, choices in found.items():
        click.echo(f"{name}: {', '.join(choices)}")


@command.command("show", epilog="Example: slm-vllm config show model=qwen_1.7b dataset=nq")
@OVERRIDES
@CONFIG_DIR
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of YAML.")
def show(overrides: tuple[str, ...], config_dir: str | None, as_json: bool) -> None:
    """Print the whole configuration that a set of overrides makes."""
    import yaml

    from slm_vllm.config.compose import compose_config

    content = compose_config(overrides, config_dir).model_dump(mode="json")
    if as_json:
        echo_json(content)
    else:
        click.echo(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), nl=False)


@command.command("validate", epilog="Example: slm-vllm config validate --config-dir my_configs")
@OVERRIDES
@CONFIG_DIR
def validate(overrides: tuple[str, ...], config_dir: str | None) -> None:
    """Check a configuration, and every file of every group on its own."""
    from slm_vllm.config.compose import compose_config, group_choices, has_blanks
    from slm_vllm.config.overrides import GROUPS
    from slm_vllm.errors import ConfigError
    from slm_vllm.runs.choices import check_choices

    check_choices(compose_config(overrides, config_dir))
    problems = []
    checked = 0
    for group in GROUPS:
        for choice, path in group_choices(group, config_dir).items():
            checked += 1
            try:
                if has_blanks(path):  # that --model, --dataset and others fill in
                    continue
                check_choices(compose_config([*overrides, f"{group}={choice}"], config_dir))
            except ConfigError as error:
                problems.append(f"{path}: {error}")
    if problems:
        raise ConfigError("\n".join(problems))
    click.echo(f"Valid: this configuration and {checked} files in {len(GROUPS)} groups.")
