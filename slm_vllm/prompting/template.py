"""Turns a question and its passages into the text of a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from slm_vllm.config.schema import PromptConfig
from slm_vllm.errors import ConfigError
from slm_vllm.prompting.answer import open_block, open_block_at_end
from slm_vllm.prompting.chat import RenderedChat, render_chat
from slm_vllm.types import Passage, ThinkingBlock

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
        day: What a chat template takes for today; None: `prompt.date`, or the clock's day.

    Attributes:
        is_chat: Whether the prompt is written by the tokenizer's chat template.
        day: The day that stands in the prompts, None where none does.
        has_system_turn: Whether the instruction has a turn of its own. Where the chat template
            knows none, it stands at the beginning of the first user's turn.

    Raises:
        ConfigError: A chat template is asked for and the tokenizer has none, or it fails.
    """

    def __init__(self, config: PromptConfig, tokenizer: Any, day: date | None = None) -> None:
        self._config = config
        self._examples = tuple(self._examples_of(config))
        self._lay_out(has_system_turn=bool(config.system))
        has_template = bool(getattr(tokenizer, "chat_template", None))
        if config.chat and not has_template:
            raise ConfigError(
                "prompt.chat is true, but the model's tokenizer has no chat template. "
                "Set prompt=plain, or prompt.chat=false"
            )
        self.is_chat = has_template if config.chat is None else config.chat
        self.day: date | None = None
        if self.is_chat:
            today = day or config.day or date.today()
            self._before, self._after = self._chat_surround(tokenizer, today)
        else:
            self._before, self._after = self._plain_surround()
        self._opened = open_block(self._after) if self.is_chat else None

    @property
    def state(self) -> tuple[str, ...]:
        """What answers depend on beside the configuration and the tokenizer."""
        opened = self.opened_block(self.user_turn("", ()))
        return (
            *([f"date {self.day.isoformat()}"] if self.day else []),
            *([f"opens {opened.opening}"] if opened else []),
            *(["instruction in the user's turn"] if self.moves_instruction else []),
        )

    @property
    def moves_instruction(self) -> bool:
        """Whether the instruction stands in a user's turn, as the template knows no other."""
        return self.is_chat and bool(self._config.system) and not self.has_system_turn

    def opened_block(self, turn: str) -> ThinkingBlock | None:
        """The thinking block that the prompt around a user's turn leaves open."""
        return self._opened if self.is_chat else open_block_at_end(turn)

    def render(self, question: str, passages: Sequence[Passage]) -> str:
        """The whole prompt as text; passages are numbered in the order given."""
        return self.surround(self.user_turn(question, self.blocks(passages)))

    def blocks(self, passages: Sequence[Passage]) -> list[str]:
        """Each passage as it stands in the prompt, numbered in the order given."""
        return [self._block(rank, passage) for rank, passage in enumerate(passages, start=1)]

    def user_turn(self, question: str, blocks: Sequence[str]) -> str:
        """The user's turn alone, with the blocks of the passages it shows."""
        if not blocks:
            return self._config.question_template.format(question=question).strip()
        context = self._config.passage_separator.join(blocks)
        return self._config.context_template.format(context=context, question=question).strip()

    def turns(self, user_turn: str) -> list[dict[str, str]]:
        """The chat that ends with a user's turn: instruction and examples come before it."""
        return [*self._turns_before, {"role": "user", "content": self._lead + user_turn}]

    def surround(self, turn: str) -> str:
        """The whole prompt around a user's turn."""
        return f"{self._before}{turn}{self._after}"

    def _lay_out(self, *, has_system_turn: bool) -> None:
        """Makes the turns before a user's, once for all questions."""
        self.has_system_turn = has_system_turn
        system = self._config.system or ""
        before = [{"role": "system", "content": system}] if has_system_turn else []
        for question, answer in self._examples:
            before.append({"role": "user", "content": question})
            before.append({"role": "assistant", "content": answer})
        self._turns_before, self._lead = before, ""
        if system and not has_system_turn:
            if before:
                before[0]["content"] = f"{system}\n\n{before[0]['content']}"
            else:
                self._lead = f"{system}\n\n"

    def _chat_surround(self, tokenizer: Any, today: date) -> tuple[str, str]:
        chat = self._rendered(tokenizer, today)
        self.day = today if chat.writes_day else None
        before, found, after = chat.text.rpartition(_PLACEHOLDER)
        if not found:
            raise ConfigError(
                "The model's chat template does not show the user's turn. Use prompt.chat=false"
            )
        if not all(_shows(before, part) for example in self._examples for part in example):
            raise ConfigError(
                "The model's chat template shows no turns but the last. Use prompt.few_shot=[] "
                "or prompt.chat=false"
            )
        return before, after

    def _rendered(self, tokenizer: Any, today: date) -> RenderedChat:
        """The chat as it is, or with its instruction in a user's turn where it is not shown."""

        def render() -> RenderedChat:
            return render_chat(tokenizer, self.turns(_PLACEHOLDER), self._config, today)

        failure: ConfigError | None = None
        try:
            chat = render()
        except ConfigError as error:
            failure = error
        else:
            if _shows(chat.text, self._config.system or ""):
                return chat
        self._lay_out(has_system_turn=False)
        try:
            return render()
        except ConfigError as error:
            raise failure or error from None

    def _plain_surround(self) -> tuple[str, str]:
        parts = [self._config.system] if self._config.system else []
        parts += [f"{question} {answer}" for question, answer in self._examples]
        return "".join(f"{part}\n\n" for part in parts), ""

    def _examples_of(self, config: PromptConfig) -> Iterator[tuple[str, str]]:
        """The user's turn and the answer of each."""
        for example in config.few_shot:
            passages = [Passage("", "", "", example.context)] if example.context else []
            yield self.user_turn(example.question, self.blocks(passages)), example.answer

    def _block(self, rank: int, passage: Passage) -> str:
        text = self._config.passage_template.format(
            rank=rank, title=passage.title, text=passage.text
        )
        # A passage without a title leaves a blank behind its number.
        return "\n".join(line.rstrip() for line in text.splitlines())


def _shows(text: str, part: str) -> bool:
    """Whether a part stands in a text, whatever a template makes of blanks and line breaks."""
    return " ".join(part.split()) in " ".join(text.split())
