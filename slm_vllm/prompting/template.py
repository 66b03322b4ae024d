"""Turns a question and its passages into the text of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slm_vllm.config.schema import PromptConfig
from slm_vllm.errors import ConfigError
from slm_vllm.types import Passage

# Stands for the last user turn while the chat template is rendered; from Unicode's private use
# area, so that no template treats it specially.
_PLACEHOLDER = "\ue000question\ue000"


class PromptTemplate:
    """The text around a question: chat turns or plain, instruction, examples, passages.

    The chat template is rendered once, with a placeholder for the question, instead of once for
    each question: Jinja costs more than the tokenizer.

    Args:
        config: The `prompt` section.
        tokenizer: A transformers tokenizer; only its chat template is used.

    Raises:
        ConfigError: A template names a field that does not exist, or a chat template is asked for
            and the tokenizer has none.
    """

    def __init__(self, config: PromptConfig, tokenizer: Any) -> None:
        self._config = config
        self._turns_before = _turns_before(config)
        has_template = bool(getattr(tokenizer, "chat_template", None))
        if config.chat and not has_template:
            raise ConfigError(
                "prompt.chat is true, but the model's tokenizer has no chat template. "
                "Set prompt=plain, or prompt.chat=false"
            )
        self.is_chat = has_template if config.chat is None else config.chat
        _check_templates(config)
        surround = self._chat_surround(tokenizer) if self.is_chat else self._plain_surround()
        self._before, self._after = surround

    def render(self, question: str, passages: Sequence[Passage]) -> str:
        """The whole prompt as text; passages are numbered in the order given."""
        return self.surround(user_turn(self._config, question, passages))

    def user_turn(self, question: str, passages: Sequence[Passage]) -> str:
        """The user's turn alone."""
        return user_turn(self._config, question, passages)

    def turns(self, user_turn: str) -> list[dict[str, str]]:
        """The chat that ends with a user's turn: instruction and examples come before it."""
        return [*self._turns_before, {"role": "user", "content": user_turn}]

    def surround(self, turn: str) -> str:
        """The whole prompt around a user's turn."""
        return f"{self._before}{turn}{self._after}"

    def _chat_surround(self, tokenizer: Any) -> tuple[str, str]:
        messages = self.turns(_PLACEHOLDER)
        from jinja2 import TemplateError

        try:
            text = tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=self._config.enable_thinking,
            )
        except TemplateError as error:
            # Some templates know no system turn and say so by failing.
            turns = ", ".join(message["role"] for message in messages)
            raise ConfigError(
                f"The model's chat template refuses the turns {turns}: {error}. "
                "Set prompt.system=null, or prompt.chat=false"
            ) from None
        before, found, after = text.rpartition(_PLACEHOLDER)
        if not found:
            raise ConfigError(
                "The model's chat template does not show the user's turn. Use prompt.chat=false"
            )
        return before, after

    def _plain_surround(self) -> tuple[str, str]:
        parts = [self._config.system] if self._config.system else []
        parts += [f"{question} {answer}" for question, answer in _examples(self._config)]
        return "".join(f"{part}\n\n" for part in parts), ""


def _turns_before(config: PromptConfig) -> list[dict[str, str]]:
    """The turns in front of the user's last one, as a chat: instruction and examples."""
    turns = [{"role": "system", "content": config.system}] if config.system else []
    for question, answer in _examples(config):
        turns.append({"role": "user", "content": question})
        turns.append({"role": "assistant", "content": answer})
    return turns


def user_turn(config: PromptConfig, question: str, passages: Sequence[Passage]) -> str:
    """What the user says: the question, behind the passages where there are any."""
    asked = config.question_template.format(question=question)
    if not passages:
        return asked.strip()
    context = config.passage_separator.join(
        _passage(config, rank, passage) for rank, passage in enumerate(passages, start=1)
    )
    return config.context_template.format(context=context, question=question).strip()


def _passage(config: PromptConfig, rank: int, passage: Passage) -> str:
    text = config.passage_template.format(rank=rank, title=passage.title, text=passage.text)
    # A passage without a title leaves a blank behind its number.
    return "\n".join(line.rstrip() for line in text.splitlines())


def _examples(config: PromptConfig) -> list[tuple[str, str]]:
    examples = []
    for example in config.few_shot:
        passages = [Passage("", "", "", example.context)] if example.context else []
        examples.append((user_turn(config, example.question, passages), example.answer))
    return examples


def _check_templates(config: PromptConfig) -> None:
    """Fills every template once, so that a wrong field is found before the model is loaded."""
    fields: dict[str, dict[str, Any]] = {
        "question_template": {"question": ""},
        "context_template": {"context": "", "question": ""},
        "passage_template": {"rank": 1, "title": "", "text": ""},
    }
    for name, values in fields.items():
        try:
            getattr(config, name).format(**values)
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            known = ", ".join(f"{{{field}}}" for field in values)
            raise ConfigError(
                f"prompt.{name} cannot be filled in ({error!r}). It knows {known}; "
                "write {{ and }} for braces of the text"
            ) from None
