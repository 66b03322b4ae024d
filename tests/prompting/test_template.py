from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from slm_vllm.config.schema import FewShotExample, PromptConfig
from slm_vllm.errors import ConfigError
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.types import Passage


class Bare:
    """All that a template needs of a tokenizer without a chat template."""

    chat_template = None


class Chat:
    """Writes down what it is asked to render."""

    chat_template = "yes"

    def __init__(self, form: str = "{}>") -> None:
        self.form = form
        self.options: dict[str, Any] = {}

    def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
        self.options = options
        return self.form.format("".join(f"<{m['role']}:{m['content']}" for m in messages))


def passages(*texts: str, title: str = "") -> list[Passage]:
    return [Passage(str(n), "d", title, text) for n, text in enumerate(texts)]


def template(tokenizer: Any = None, **fields: Any) -> PromptTemplate:
    return PromptTemplate(PromptConfig(name="test", **fields), tokenizer or Bare())


def test_plain() -> None:
    made = template(
        system="Be brief.",
        question_template="Q: {question}\nA:",
        few_shot=(FewShotExample(question="1+1", answer="2"),),
    )
    assert not made.is_chat
    assert made.render("2+2", []) == "Be brief.\n\nQ: 1+1\nA: 2\n\nQ: 2+2\nA:"


def test_chat() -> None:
    tokenizer = Chat()
    made = template(
        tokenizer,
        system="Be brief.",
        question_template="Q: {question}",
        few_shot=(FewShotExample(question="1+1", answer="2"),),
    )
    assert made.is_chat
    expected = "<system:Be brief.<user:Q: 1+1<assistant:2<user:Q: 2+2>"
    assert made.render("2+2", []) == expected
    assert tokenizer.options["add_generation_prompt"] is True


@pytest.mark.parametrize("thinking", [False, True])
def test_thinking_is_always_said(thinking: bool) -> None:
    tokenizer = Chat()
    template(tokenizer, enable_thinking=thinking)
    assert tokenizer.options["enable_thinking"] is thinking


def test_chat_can_be_left_out() -> None:
    assert template(Chat(), chat=False).render("q", []) == "q"


def test_chat_without_a_chat_template() -> None:
    with pytest.raises(ConfigError, match="prompt.chat is true.*prompt=plain"):
        template(Bare(), chat=True)


def test_chat_template_that_hides_the_user() -> None:
    with pytest.raises(ConfigError, match="prompt.chat=false"):
        template(Chat("nothing"))


TURN = "<{{ m.role }}:{{ m.content | trim }}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"


@pytest.mark.parametrize(
    "form",
    [
        REFUSES + "{% for m in messages %}" + TURN + "{% endfor %}>",  # Gemma
        "{% for m in messages if m.role != 'system' %}" + TURN + "{% endfor %}>",  # Phi-3
    ],
)
def test_an_instruction_without_a_turn_of_its_own_stands_in_the_first_turn(form: str) -> None:
    made = template(Jinja(form), system="Be brief. ")
    assert made.render("q", []) == "<user:Be brief. \n\nq>"
    assert made.turns("q") == [{"role": "user", "content": "Be brief. \n\nq"}]
    assert made.moves_instruction and made.state == ("instruction in the user's turn",)
    made = template(Jinja(form), system="Be brief.", few_shot=[{"question": "1", "answer": "2"}])
    assert made.render("q", []) == "<user:Be brief.\n\n1<assistant:2<user:q>"
    made = template(Jinja(form))
    assert made.render("q", []) == "<user:q>" and made.state == ()


def test_an_instruction_with_a_turn_of_its_own_stays_there() -> None:
    made = template(Jinja("{% for m in messages %}" + TURN + "{% endfor %}>"), system=" Be brief.")
    assert made.render("q", []) == "<system:Be brief.<user:q>"
    assert not made.moves_instruction and made.state == ()
    assert not template(system="Be brief.").moves_instruction


def test_line_breaks_that_a_chat_template_leaves_out_hide_nothing() -> None:
    tidy = TURN.replace("m.content", "m.content.replace('\\n\\n', '\\n')")
    made = template(
        Jinja("{% for m in messages %}" + tidy + "{% endfor %}>"),
        system="Be brief.\n\nBe right.",
        few_shot=[{"question": "1\n\n2", "answer": "3\n\n4"}],
    )
    assert made.render("q", []) == ("<system:Be brief.\nBe right.<user:1\n2<assistant:3\n4<user:q>")
    assert not made.moves_instruction


def test_a_chat_template_that_hides_the_examples_is_refused() -> None:
    form = Jinja("{{ messages[-1].content }}")
    with pytest.raises(ConfigError, match="no turns but the last.*few_shot"):
        template(form, few_shot=[{"question": "1", "answer": "2"}])


def test_passages_are_numbered_in_order() -> None:
    made = template(passage_separator="|", context_template="{context}#{question}")
    assert made.render("q", passages("b", "a", title="T")) == "[1] T\nb|[2] T\na#q"
    assert made.render("q", passages("b")) == "[1]\nb#q"


def test_example_with_context() -> None:
    made = template(
        few_shot=(FewShotExample(question="1+1", answer="2", context="sums"),),
        passage_template="({text})",
        context_template="{context} {question}",
    )
    assert made.render("q", []) == "(sums) 1+1 2\n\nq"


def test_braces_of_users_are_text() -> None:
    made = template(system="{system}", few_shot=(FewShotExample(question="{0}", answer="{a}"),))
    question, text = "{question} {} {x!r", "{text} {{ %s \\1"
    assert made.render(question, passages(text, title="{title}")) == (
        "{system}\n\n{0} {a}\n\n[1] {title}\n{text} {{ %s \\1\n\n{question} {} {x!r"
    )


def test_doubled_braces_of_a_template() -> None:
    assert template(question_template='{{"q": "{question}"}}').render("x", []) == '{"q": "x"}'


class Jinja:
    """A tokenizer's chat templates, rendered as transformers does."""

    special_tokens_map: dict[str, str] = {}

    def __init__(self, chat_template: str | dict[str, str]) -> None:
        self.chat_template = chat_template

    def apply_chat_template(self, turns: list[dict[str, str]], **options: Any) -> str:
        from transformers import PreTrainedTokenizerBase

        return str(PreTrainedTokenizerBase.apply_chat_template(self, turns, **options))

    def get_chat_template(self, *given: Any) -> str:
        from transformers import PreTrainedTokenizerBase

        return str(PreTrainedTokenizerBase.get_chat_template(self, *given))


TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


@pytest.mark.parametrize(
    ("end", "opened"),
    [
        ("<think>\n", "<think>"),
        ("<think>\n\n</think>\n\n", None),
        ("[THINK]", "[THINK]"),
        ("<|begin_of_thought|>\n", "<|begin_of_thought|>"),
        ("{% if enable_thinking %}<thinking>{% endif %}", None),
        ("", None),
    ],
)
def test_block_that_the_template_opens(end: str, opened: str | None) -> None:
    made = template(Jinja(TURNS + "[assistant]" + end), system="Write <think> first.")
    block = made.opened_block("what does <think> mean? <think>")
    assert (block.opening if block else None) == opened
    assert made.state == ((f"opens {opened}",) if opened else ())


DAY = date(2026, 1, 31)
DATED = [
    ("{{ strftime_now('%d %b %Y') }}", "31 Jan 2026"),
    ("{% set today = strftime_now('%B %d, %Y') %}Today is {{ today }}.", "January 31, 2026"),
    ("{{ strftime_now('%Y-%m-%d %H:%M') }}", "2026-01-31 00:00"),
]


@pytest.mark.parametrize(("form", "written"), DATED)
def test_day_of_the_template(form: str, written: str) -> None:
    made = template(Jinja(form + TURNS))
    assert made.day == date.today()
    made = PromptTemplate(PromptConfig(name="test"), Jinja(form + TURNS), DAY)
    assert written in made.render("q", []) and made.day == DAY
    assert made.state == ("date 2026-01-31",)
    assert written in template(Jinja(form + TURNS), date="2026-01-31").render("q", [])


LLAMA = (
    "{% if date_string is not defined %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    "Today Date: {{ date_string }} "
)


def test_a_day_that_the_template_has_for_itself() -> None:
    made = template(Jinja(LLAMA + TURNS))
    assert "Today Date: 26 Jul 2024" in made.render("q", [])
    assert made.day is None and made.state == ()
    made = template(Jinja(LLAMA + TURNS), date="2026-01-31")
    assert "Today Date: 31 Jan 2026" in made.render("q", []) and made.day == DAY


def test_a_day_that_is_read_and_not_written() -> None:
    form = "{% set today = strftime_now('%Y-%m-%d') %}{% if not messages %}{{ today }}{% endif %}"
    assert template(Jinja(form + TURNS)).state == ()


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ("{{ 'a' + tools }}", "TypeError"),
        ("{{ 1 // 0 }}", "ZeroDivisionError"),
        ("{{ messages[0].content.no_such() }}", "UndefinedError"),
        ("{{ messages['x'].y }}", "UndefinedError"),
        ("{{ raise_exception('only tools') }}", "only tools"),
        ("{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
        ("{{ messages[0].content.__class__.mro() }}", "SecurityError"),
        ("{% if %}", "line 1"),
    ],
)
def test_template_that_fails(form: str, said: str) -> None:
    with pytest.raises(ConfigError, match="prompt.chat=false") as caught:
        template(Jinja(form))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_template_that_misses_a_day() -> None:
    form = "{{ 'Today: ' + date_string }}" + TURNS
    with pytest.raises(ConfigError, match="'date_string' is undefined.*prompt.date=2026"):
        template(Jinja(form))
    assert template(Jinja(form), date="2026-01-31").day == DAY


def test_named_templates() -> None:
    named = Jinja({"rag": "R" + TURNS, "tool_use": "x"})
    with pytest.raises(ConfigError, match="no default: rag, tool_use.*prompt.chat_template=rag"):
        template(named)
    assert template(named, chat_template="rag").render("q", []) == "R[user]q"
    with pytest.raises(ConfigError, match="Did you mean 'rag'"):
        template(named, chat_template="rga")
    with pytest.raises(ConfigError, match="has one chat template"):
        template(Jinja(TURNS), chat_template="rag")
    assert template(Jinja({"default": "D" + TURNS, "rag": "R"})).render("q", []) == "D[user]q"
