from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.config.schema import FewShotExample, PromptConfig
from slm_vllm.prompting.renderer import PromptInput, PromptRenderer
from slm_vllm.prompting.template import PromptTemplate
from slm_vllm.types import Passage, RenderedPrompt

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
LINES = [
    "Question: who wrote the play about the prince of Denmark",
    "Answer from the passages. Answer the question with a few words.",
    "the town of Arden lies on the river Lumen and has a mill",
]


@cache
def tokenizer(chat: bool) -> Any:
    """A byte-level BPE of 400 tokens; without a chat template it begins texts with <s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(LINES, trainer)
    # As Llama's: chat templates write their own special tokens, so this must not add to them.
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
    )
    made = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="<|im_end|>")
    made.chat_template = CHATML if chat else None
    return made


def passage(text: str, number: int = 0) -> Passage:
    return Passage(f"p{number}", "d", f"Title {number}", text)


def renderer(budget: int = 10**6, *, chat: bool = True, **fields: Any) -> PromptRenderer:
    template = PromptTemplate(PromptConfig(name="test", **fields), tokenizer(chat))
    return PromptRenderer(template, tokenizer(chat), budget)


def render(budget: int, item: PromptInput, *, chat: bool = True, **fields: Any) -> RenderedPrompt:
    return renderer(budget, chat=chat, **fields).render([item])[0]


def text_of(prompt: RenderedPrompt) -> str:
    return str(tokenizer(True).decode(prompt.token_ids))


THREE = tuple(passage(f"w{n} " * 40, n) for n in range(3))


@pytest.mark.parametrize("thinking", [False, True])
@pytest.mark.parametrize("system", [None, "Answer with a few words."])
def test_equals_the_tokenizers_own_chat(thinking: bool, system: str | None) -> None:
    example = FewShotExample(question="what is the capital of France", answer="Paris")
    prompts = renderer(
        system=system,
        few_shot=(example,),
        question_template="Question: {question}",
        context_template="{context}\nQ: {question}",
        enable_thinking=thinking,
    )
    asked = [("who wrote Hamlet", ()), ("caf\u00e9 \u6f22 {x} <|im_end|>", (passage("a mill"),))]
    turns = [
        "Question: who wrote Hamlet",
        "[1] Title 0\na mill\nQ: caf\u00e9 \u6f22 {x} <|im_end|>",
    ]
    rendered = prompts.render([PromptInput(*item) for item in asked])
    for prompt, turn in zip(rendered, turns, strict=True):
        messages = [{"role": "system", "content": system}] if system else []
        messages += [
            {"role": "user", "content": "Question: what is the capital of France"},
            {"role": "assistant", "content": "Paris"},
            {"role": "user", "content": turn},
        ]
        expected = tokenizer(True).apply_chat_template(
            messages,
            tokenize=True,
            add_generation_prompt=True,
            enable_thinking=thinking,
            return_dict=False,
        )
        assert prompt.token_ids == list(expected)
        assert not prompt.truncated and prompt.error is None
    assert [prompt.n_passages_used for prompt in rendered] == [0, 1]


def test_plain_prompt_has_the_tokenizers_special_tokens() -> None:
    prompt = render(100, PromptInput("who?"), chat=False, question_template="Q: {question}\nA:")
    assert prompt.token_ids == tokenizer(False)("Q: who?\nA:")["input_ids"]
    assert prompt.token_ids[0] == tokenizer(False).bos_token_id


def test_no_inputs() -> None:
    assert renderer().render([]) == []


def test_prompts_of_a_batch_do_not_depend_on_each_other() -> None:
    items = [PromptInput("a", THREE), PromptInput("b"), PromptInput("c" * 400), PromptInput("d")]
    prompts = renderer(120)
    assert prompts.render(items) == [prompts.render([item])[0] for item in items]


def test_budget_that_is_just_enough() -> None:
    item = PromptInput("who?", THREE)
    whole = render(10**6, item)
    assert render(len(whole.token_ids), item) == whole
    assert (whole.n_passages_used, whole.truncated) == (3, False)
    less = render(len(whole.token_ids) - 1, item)
    assert (less.n_passages_used, less.truncated) == (2, True)


@pytest.mark.parametrize("kept", [1, 2])
def test_lowest_ranked_go_first(kept: int) -> None:
    fewer = render(10**6, PromptInput("who?", THREE[:kept]))
    prompt = render(len(fewer.token_ids), PromptInput("who?", THREE))
    assert prompt.token_ids == fewer.token_ids
    assert (prompt.n_passages_used, prompt.truncated) == (kept, True)


def test_last_passage_is_cut_at_its_end() -> None:
    words = " ".join(f"n{n}" for n in range(300))
    item = PromptInput("who wrote Hamlet", (passage(words), passage("other", 1)))
    prompt = render(150, item, context_template="{context}#{question}")
    kept = text_of(prompt).partition("Title 0\n")[2].partition("#who wrote Hamlet")[0]
    assert words.startswith(kept) and len(kept) > 50
    assert 140 <= len(prompt.token_ids) <= 150
    assert (prompt.n_passages_used, prompt.truncated) == (1, True)
    assert words[: prompt.cut].rstrip() == kept
    assert render(10**6, item).cut is None


def test_no_room_for_any_passage() -> None:
    closed_book = render(10**6, PromptInput("who?"))
    prompt = render(len(closed_book.token_ids), PromptInput("who?", THREE))
    assert prompt.token_ids == closed_book.token_ids
    assert (prompt.n_passages_used, prompt.truncated) == (0, True)


@pytest.mark.parametrize("offered", [(), THREE])
def test_question_over_the_budget(offered: tuple[Passage, ...]) -> None:
    item = PromptInput("who is who " * 50, offered)
    needed = len(render(10**6, PromptInput(item.question)).token_ids)
    prompt = render(needed - 1, item)
    assert prompt.token_ids == [] and prompt.n_passages_used == 0
    assert prompt.error is not None
    assert str(needed) in prompt.error and str(needed - 1) in prompt.error


def test_very_long_passage() -> None:
    text = "the river Lumen \u6f22\u5b57 " * 15_000
    assert len(text.encode()) > 300_000
    prompt = render(512, PromptInput("who?", (passage(text),)))
    assert 500 <= len(prompt.token_ids) <= 512
    assert (prompt.n_passages_used, prompt.truncated) == (1, True)
    assert "who?" in text_of(prompt)


WORDS = st.sampled_from(["river ", "x", "\u6f22", "\n", "  ", "{", "1999", "e\u0301", "<s>", "zq"])
TEXTS = st.lists(WORDS, max_size=80).map("".join)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    question=st.lists(WORDS, max_size=10).map("".join),
    texts=st.lists(TEXTS, max_size=4),
    budget=st.integers(1, 200),
    chat=st.booleans(),
)
def test_budget_is_kept(question: str, texts: list[str], budget: int, chat: bool) -> None:
    offered = tuple(passage(text, n) for n, text in enumerate(texts))
    prompt = render(budget, PromptInput(question, offered), chat=chat)
    alone = render(10**6, PromptInput(question), chat=chat)
    assert len(prompt.token_ids) <= budget
    assert (prompt.error is None) == bool(prompt.token_ids)
    assert 0 <= prompt.n_passages_used <= len(offered)
    if prompt.error is not None:
        assert len(alone.token_ids) > budget
        return
    assert tokenizer(chat).decode(prompt.token_ids).count(question.strip()) >= 1
    if prompt.n_passages_used < len(offered):
        assert prompt.truncated
    if not prompt.truncated:
        assert prompt == render(10**6, PromptInput(question, offered), chat=chat)


@pytest.mark.parametrize("budget", [10**6, 150, 60])
def test_the_users_turn_is_what_the_prompt_says(budget: int) -> None:
    prompt = render(budget, PromptInput("who wrote the play", THREE), system="Be brief.")
    assert prompt.error is None and prompt.user_turn.endswith("who wrote the play")
    assert prompt.user_turn.count("Title") == prompt.n_passages_used
    assert f"<|im_start|>user\n{prompt.user_turn}<|im_end|>" in text_of(prompt)


def one_by_one(budget: int, item: PromptInput, **fields: Any) -> tuple[list[int], int, bool]:
    """The definition: every number of passages is rendered whole, from the most to the fewest."""
    whole = renderer(10**6, **fields)

    def ids(passages: tuple[Passage, ...]) -> list[int]:
        return whole.render([PromptInput(item.question, passages)])[0].token_ids

    offered = item.passages
    for kept in range(len(offered), 0, -1):
        if len(found := ids(offered[:kept])) <= budget:
            return found, kept, kept < len(offered)
    if len(alone := ids(())) > budget:
        return [], 0, False
    if offered:
        first = offered[0]
        offsets = tokenizer(True)(
            first.text, add_special_tokens=False, return_offsets_mapping=True
        )["offset_mapping"]
        room = min(budget - len(ids((replace(first, text=""),))), len(offsets))
        while room > 0:
            found = ids((replace(first, text=first.text[: offsets[room - 1][1]]),))
            if len(found) <= budget:
                return found, 1, True
            room -= len(found) - budget
    return alone, 0, bool(offered)


FORMS = [{}, {"passage_template": "{text}", "passage_separator": ""}]


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    question=st.lists(WORDS, max_size=10).map("".join),
    texts=st.lists(st.tuples(TEXTS, st.sampled_from([0, 1, 1, 40])), max_size=7),
    budget=st.integers(20, 150),
    chat=st.booleans(),
    form=st.sampled_from(FORMS),
)
def test_equals_the_definition(
    question: str,
    texts: list[tuple[str, int]],
    budget: int,
    chat: bool,
    form: dict[str, Any],
) -> None:
    offered = tuple(passage(text * times, n) for n, (text, times) in enumerate(texts))
    item = PromptInput(question, offered)
    prompt = render(budget, item, chat=chat, **form)
    expected = one_by_one(budget, item, chat=chat, **form)
    assert (prompt.token_ids, prompt.n_passages_used, prompt.truncated) == expected


class Counting:
    """Passes everything on to a tokenizer and counts the characters it is given."""

    def __init__(self) -> None:
        self.chat_template = CHATML
        self.characters = 0

    def __call__(self, texts: str | list[str], **options: Any) -> Any:
        self.characters += sum(map(len, [texts] if isinstance(texts, str) else texts))
        return tokenizer(True)(texts, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(tokenizer(True), name)


def tokenized_characters(budget: int, *passages: Passage) -> int:
    counting = Counting()
    template = PromptTemplate(PromptConfig(name="test"), counting)
    made = PromptRenderer(template, counting, budget)
    prompt = made.render([PromptInput("who?", passages)])[0]
    assert prompt.truncated and len(prompt.token_ids) <= budget
    return counting.characters


def test_work_does_not_grow_with_passages_that_have_no_room() -> None:
    many = [passage("the river Lumen and a mill " * 20, n) for n in range(400)]
    few, all_of_them = (tokenized_characters(500, *many[:n]) for n in (50, 400))
    assert all_of_them < 2 * few
    assert tokenized_characters(500, passage("a long river " * 100_000)) < 30_000


@pytest.mark.parametrize("blank", [" ", "\n", "  \n"])
def test_a_long_passage_that_is_short_in_tokens_is_kept(blank: str) -> None:
    text = f"Arden{blank * 20_000}Lumen"
    prompt = render(120, PromptInput("who?", (passage(text),)), passage_template="{text}")
    whole = render(10**6, PromptInput("who?", (passage(text),)), passage_template="{text}")
    assert prompt.truncated == (len(whole.token_ids) > 120)


def test_prompts_come_a_few_at_a_time() -> None:
    counting = Counting()
    made = PromptRenderer(PromptTemplate(PromptConfig(name="test"), counting), counting, 500)
    items = [PromptInput("who?", (passage("a mill " * 300),)) for _ in range(500)]
    stream = made.stream(items)
    next(stream)
    begun = counting.characters
    assert len(list(stream)) == 499 and counting.characters > 1.5 * begun


def test_longest_counts_no_further_than_the_budget() -> None:
    items = [PromptInput("who?"), PromptInput("who?", THREE)]
    whole = max(len(prompt.token_ids) for prompt in renderer().render(items))
    assert renderer(whole).longest(items) == whole
    assert renderer(whole - 1).longest(items) == whole
    assert renderer(whole - 9).longest(items) == whole - 8
    assert renderer().longest([]) == 0


def test_a_question_much_too_long_is_said_so() -> None:
    prompt = render(100, PromptInput("who is who " * 5000))
    assert prompt.error is not None and "more than" in prompt.error


@pytest.mark.parametrize("end", ["", "\n<think>\n"])
def test_the_prompt_says_what_it_leaves_open(end: str) -> None:
    prompt = render(100, PromptInput("who?"), chat=False, question_template="Q: {question}" + end)
    assert (prompt.opened is not None) == bool(end)
