"""The tokenizer's chat template: rendered once for a run, on one day, its failures explained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from slm_vllm.config.schema import PromptConfig
from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest

_WITHOUT = "prompt.chat=false (a plain prompt)"
# Another year, month, day of the month and day of the week.
_OTHER_DAY = timedelta(days=400)


@dataclass(frozen=True, slots=True)
class RenderedChat:
    """A chat as the model's own template writes it.

    Attributes:
        text: The whole of it, with the beginning of the answer.
        writes_day: Whether it is another one on another day.
    """

    text: str
    writes_day: bool


def render_chat(
    tokenizer: Any, turns: Sequence[dict[str, str]], config: PromptConfig, day: date
) -> RenderedChat:
    """Renders turns with the tokenizer's chat template.

    Args:
        tokenizer: A transformers tokenizer with a chat template.
        turns: Role and content of each.
        config: The `prompt` section.
        day: What the template takes for today.

    Raises:
        ConfigError: The template fails, or there are several and none is chosen.
    """
    chosen = _chosen_template(tokenizer.chat_template, config.chat_template)

    def render(today: date) -> str:
        more = dict(chosen)
        if config.date is not None:
            more["date_string"] = today.strftime("%d %b %Y")
        return str(
            tokenizer.apply_chat_template(
                list(turns),
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=config.enable_thinking,
                # Instead of the clock's, which transformers offers to templates.
                strftime_now=datetime.combine(today, time()).strftime,
                **more,
            )
        )

    try:
        text = render(day)
        return RenderedChat(text, writes_day=text != render(day - _OTHER_DAY))
    except Exception as error:  # a template is a program: it may fail in any way
        raise _template_error(error, turns) from error


def _chosen_template(templates: Any, name: str | None) -> dict[str, str]:
    """The argument that chooses one of several named templates."""
    if not isinstance(templates, dict):
        if name is None:
            return {}
        raise ConfigError(
            f"prompt.chat_template={name}: the model's tokenizer has one chat template, without a "
            "name. Leave prompt.chat_template out"
        )
    if name in templates:
        return {"chat_template": str(name)}
    if name is not None:
        raise ConfigError(
            f"prompt.chat_template={name}: the model's tokenizer has no such chat template. "
            f"{nearest(name, templates)}"
        )
    if "default" in templates:
        return {}
    raise ConfigError(
        f"The model's tokenizer has several chat templates and no default: {', '.join(templates)}. "
        f"Choose one, such as prompt.chat_template={next(iter(templates))}, or set {_WITHOUT}"
    )


def _template_error(error: Exception, turns: Sequence[dict[str, str]]) -> ConfigError:
    from jinja2 import TemplateSyntaxError, UndefinedError

    message = " ".join(str(error).split()) or "no reason given"
    kind = type(error).__name__
    if isinstance(error, TemplateSyntaxError):
        return ConfigError(
            f"The model's chat template is not valid (line {error.lineno}: {message}). Fix it in "
            f"the model's folder, or set {_WITHOUT}"
        )
    roles = ", ".join(turn["role"] for turn in turns)
    advice = []
    if isinstance(error, UndefinedError) and "date" in message:
        advice.append("prompt.date=2026-01-31 (the day it should name)")
    return ConfigError(
        f"The model's chat template fails on the turns {roles}: {message} ({kind}). "
        f"Set {', or '.join([*advice, _WITHOUT])}"
    )
