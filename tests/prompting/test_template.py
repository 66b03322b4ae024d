from __future__ import annotations

from typing import Any

import pytest
from jinja2 import TemplateError

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


def test_chat_template_that_refuses_a_system_turn() -> None:
    class NoSystem(Chat):
        def apply_chat_template(self, messages: list[dict[str, str]], **options: Any) -> str:
            if messages[0]["role"] == "system":
                raise TemplateError("System role not supported")
            return super().apply_chat_template(messages, **options)

    with pytest.raises(ConfigError, match="system, user: System role not.*prompt.system=null"):
        template(NoSystem(), system="Be brief.")
    assert template(NoSystem()).render("q", []) == "<user:q>"


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


@pytest.mark.parametrize("name", ["question_template", "context_template", "passage_template"])
@pytest.mark.parametrize("field", ["{nothing}", "{}", "{", "}", "{question.x}", "{question[x]}"])
def test_wrong_fields(name: str, field: str) -> None:
    field = field.replace("question", "text") if name == "passage_template" else field
    with pytest.raises(ConfigError, match=rf"prompt\.{name} cannot be filled in") as caught:
        template(**{name: field})
    assert ("{text}" if name == "passage_template" else "{question}") in str(caught.value)
