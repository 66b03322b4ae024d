from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slm_vllm.datasets.pages.html import clean_text, has_tags, page_title

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
