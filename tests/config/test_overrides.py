"""Values of the command line that Hydra's grammar has no place for."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.config.compose import compose_config
from slm_vllm.errors import ConfigError

TYPED = [
    "/données/q.jsonl",
    "/数据/問題.jsonl",
    "Don't explain.",
    "/m/epoch=3-step=100",
    "/my data/q (1).jsonl",
    "a # b",
    "R&D; 50 % [x] {y}, z",
    "Yes, please",
    '"',
    "'a' or 'b'",
    "back\\slash (x)",
    "1e3",
    "1_000",
    "true",
    " blanks ",
    "two\nlines",
    "$HOME",
    "glob(*)",
    "[Question]",
    "{question",
]


@pytest.mark.parametrize("value", TYPED)
def test_text_is_taken_as_it_is_typed(value: str) -> None:
    assert compose_config([f"prompt.system={value}"]).prompt.system == value


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_characters="\\$\0"), max_size=12))
def test_any_text(value: str) -> None:
    is_for_hydra = value[:1] in ("'", '"') or value.strip().lower() in ("null", "???")
    if not is_for_hydra:
        assert compose_config([f"prompt.system={value}"]).prompt.system == value


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("prompt.system=null", None),
        ("prompt.system='null'", "null"),
        ('prompt.system="a, b"', "a, b"),
        ("prompt.system=a\\, b", "a, b"),
        ("prompt.system=by ${model.name}", "by smollm2_360m"),
        ("prompt.system=\\${", "${"),
        ("prompt.system=Don't ask ${model.name}!", "Don't ask smollm2_360m!"),
    ],
)
def test_what_is_written_for_hydra_stays_so(word: str, found: str | None) -> None:
    assert compose_config(["model=smollm2_360m", word]).prompt.system == found


@pytest.mark.parametrize(
    "word", ['["\\n"]', "['\\n']", '["\n"]', "['\\n', '\\tQ:']", '["\\n\\n","(end)"]']
)
def test_line_breaks_of_stop_strings_are_some(word: str) -> None:
    wanted = tuple(
        re.findall(r"['\"](.*?)['\"]", word.replace("\\n", "\n").replace("\\t", "\t"), re.S)
    )
    assert wanted and compose_config([f"generation.stop={word}"]).generation.stop == wanted
    assert compose_config([f"prompt.stop={word}"]).prompt.stop == wanted


@pytest.mark.parametrize("value", ["\\n", "[\\n]"])
def test_a_line_break_that_is_no_list_is_advised_as_one(value: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose_config([f"generation.stop={value}"])
    (advised,) = shlex.split(re.findall(r"'generation.*", str(error.value))[0])
    assert compose_config([advised]).generation.stop == ("\n",)


@pytest.mark.parametrize("quote", ["", '"', "'"])
def test_line_breaks_of_prompts_are_some(quote: str) -> None:
    prompt = compose_config([f"prompt.question_template={quote}Q: {{question}}\\nA:{quote}"]).prompt
    assert prompt.question_template == "Q: {question}\nA:"
    typed_twice = compose_config([f"prompt.system={quote}a\\\\nb{quote}"]).prompt.system
    assert typed_twice is not None and "\n" not in typed_twice
    path = compose_config(["dataset=qa_pairs", "dataset.path=C:\\new\\top.jsonl"]).dataset.path
    assert path == "C:\\new\\top.jsonl"


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("dataset.options.column=Frage (kurz)", "Frage (kurz)"),
        ("dataset.options.column=é", "é"),
        ("dataset.options.column=3", 3),
        ("dataset.options.column=[a,b]", ["a", "b"]),
        ("dataset.options.column={a: 1}", {"a": 1}),
        ("dataset.options.column=a=b", "a=b"),
    ],
)
def test_open_mappings(word: str, found: Any) -> None:
    assert compose_config([word]).dataset.options["column"] == found


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("generation.stop=a(b", ("a(b",)),
        ("generation.stop=é, (c)", ("é", "(c)")),
        ("generation.stop=[é,(c)]", ("é", "(c)")),
        ("generation.stop=a,b", ("a", "b")),
    ],
)
def test_a_list_is_answered_with_the_words_to_type(word: str, found: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_config([word])
    (advised,) = [w for w in shlex.split(str(caught.value), posix=True) if "=[" in w][-1:]
    assert compose_config([advised]).generation.stop == found


def test_addresses_need_no_list() -> None:
    urls = "http://a:1/v1?x=(1),http://b:2/v1"
    config = compose_config(["engine.name=openai", f"engine.base_url={urls}"])
    assert config.engine.base_url == tuple(urls.split(","))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("generation.max_new_tokens=a(b", "max_new_tokens: .*found 'a\\(b'"),
        ("model.dtype=größe", "dtype: .*found 'größe'"),
        ("dataset.options={a", "cannot be read.*dataset.options={name"),
        ("prompt.few_shot=[{question: a(b}]", r"cannot be read.*prompt.few_shot=\[{name"),
        ("prompt.system=${", "as these two characters, write"),
        ("dataset.options.a b=1", "YAML file"),
        ("model=größe", "there is no such model"),
        ("prompt.system=\udcff", "not UTF-8"),
    ],
)
def test_what_cannot_be_meant_is_a_line(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        compose_config([word])
    assert "hydra.cc" not in str(caught.value)
