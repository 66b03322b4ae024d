from __future__ import annotations

import gzip
import hashlib
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.datasets.pages.detokenise import _with_opening_quotes
from slm_vllm.datasets.pages.html import clean_text, has_tags, page_title
from support.places import sample

GOLDEN = [
    ("<H1> Oslo </H1> <P> one </P> <P> two </P>", "Oslo\n\none\n\ntwo"),
    (
        "<P> Born in Oslo , Norway ( 1914 ) , he did n't say `` yes '' . It 's $ 5 . </P>",
        "Born in Oslo, Norway (1914), he didn't say \"yes\". It's $5.",
    ),
    ("<P> a .50 calibre , , end </P>", "a .50 calibre,, end"),
    ("<P> x .50 y </P>", "x .50 y"),
    (
        "<Ul> <Li> <P> a </P> </Li> <Li> </Li> <Li> b <Ul> <Li> c </Li> </Ul> </Li> </Ul> <P> d",
        "- a\n- b\n- c\n\nd",
    ),
    (
        '<Table> <Tr> <Th_colspan="2"> Name </Th> <Th> Year </Th> </Tr> '
        "<Tr> <Td> <P> Ann </P> </Td> <Td> </Td> <Td> 1914 </Td> </Tr> <Tr> <Td> </Td> </Tr> "
        "</Table> <P> end </P>",
        "Name | Year\nAnn | | 1914\n\nend",
    ),
    ("<Ul> <Li> <P> a </P> <P> b </P> </Li> <Li> c </Li> </Ul>", "- a\n\nb\n- c"),
    ("<Ul> <Li> a </Li> <Li> <P> b </P> </Li> </Ul>", "- a\n- b"),
    ("<Tr> <Td> a </Td> <Td> </Td> </Tr> <Tr> <Td> </Td> <Td> b </Td> </Tr>", "a\n| b"),
    ("<Dl> <Dt> term </Dt> <Dd> meaning </Dd> </Dl>", "term\nmeaning"),
    ("1 < 2 and <y> <b>bold</b>er &amp; x <br/> z", "1 < 2 and <y> bolder & x\nz"),
    ("plain\n\ntext  with \t tab\n\n\n\nend | x", "plain\n\ntext with tab\n\nend | x"),
    ("<script>var p = '<p>';</script> <!-- <p> --> seen", "seen"),
    ("", ""),
    ("<P> </P>", ""),
]


@pytest.mark.parametrize(("text", "cleaned"), GOLDEN)
def test_golden(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_page_title() -> None:
    assert page_title("<H1> Oak Island ( film ) </H1> <P> x </P>") == "Oak Island (film)"
    assert page_title("<P> no heading </P>") == ""


TAGS = "P H1 Ul Li Table Tr Td Th Dl Dd B".split()
TOKENS = st.sampled_from(
    [f"<{tag}>" for tag in TAGS] + [f"</{tag}>" for tag in TAGS] + ["word", ",", "(", "x1"]
)


@given(st.lists(TOKENS))
def test_tags_vanish_in_any_order_and_words_stay(tokens: list[str]) -> None:
    cleaned = clean_text(" ".join(tokens))
    assert not has_tags(cleaned)
    assert cleaned == cleaned.strip()
    assert "\n\n\n" not in cleaned
    words = [token for token in tokens if token in ("word", "x1")]
    found = cleaned.replace(",", " ").replace("(", " ").replace("|", " ").replace("-", " ")
    assert found.split() == words


@given(st.text(alphabet="abc <>&|.,\n"))
def test_text_without_tags_keeps_its_words(text: str) -> None:
    if not has_tags(text):
        assert "".join(clean_text(text).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a ,) b", "a,) b"),
        ("a ,)x", "a,)x"),
        ("a ,x , , .", "a ,x,,."),
        ("( [ x ] ) € 5 $ x £ ٣", "([x]) €5 $ x £٣"),
        ("he 's we’ll I n't do n’t 's 'sx ' x ''", "he's we’ll In't don’t's 'sx ' x\""),
        ("a ``` b `` c '' ' '''", 'a `"b "c" \'"\''),
        ("a\u2003\u2003b\u00a0, \U0001f600 . \u3000c", "a b, \U0001f600. c"),
        ("<P <P > a < b <P> c", "<P\n\na < b\n\nc"),
    ],
)
def test_punctuation(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


DAMAGE = (
    "< </ > <!-- --> <script> </script> </STYLE> <P> </P> <Table> </Table> <Tr> </Tr> <Td> </Td> "
    "<Ul> </Ul> <Li> </Li> <B> &amp; &lt;P&gt; `` '' ` ' 's n't . ( ) $ 5 é 京 <br/> <Dd> <y> 😀 "
    '<Th_colspan="2">'
).split() + [" ", "\n", "\t", "\u3000", "\x1c", "\u2003"]


def damaged(page: str, rng: random.Random) -> str:
    def below(n: int) -> int:
        return int(rng.random() * n)

    for _ in range(1 + below(20)):
        at = below(len(page) + 1)
        if rng.random() < 0.7:
            page = page[:at] + DAMAGE[below(len(DAMAGE))] + " " * below(2) + page[at:]
        else:
            page = page[:at] + page[at + below(12) :]
    return page


def test_real_and_damaged_pages_are_cleaned_as_by_0_2_0() -> None:
    rng = random.Random(0)
    digest = hashlib.sha256()
    with gzip.open(sample("NQ-open.sample.merged.jsonl.gz"), "rt", encoding="utf-8") as file:
        for line in file:
            page = json.loads(line)["document_text"]
            for text in (page, damaged(page, rng), damaged(page, rng)):
                digest.update(clean_text(text).encode() + b"\0")
    assert digest.hexdigest() == "c32e2db83bfe6701b546b704467f17804a045fd8027062829b312abbc8ba0fdb"


@given(st.text(alphabet="` x\n"))
def test_opening_quotes_are_those_of_plain_replacements(text: str) -> None:
    assert _with_opening_quotes(text) == text.replace("`` ", '"').replace("``", '"')
