"""Words and answers in many languages, by hand."""

from __future__ import annotations

import unicodedata

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_vllm.scoring import normalize
from slm_vllm.scoring.answers import score_answers
from slm_vllm.scoring.metrics import METRICS
from slm_vllm.scoring.normalize import searchable, skeleton, squad_form, squad_tokens, words
from support import text_reference as reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rock ’n’ Roll", "rock n roll"),
        ("snake_case 3.14", "snake_case 3 14"),
        ("中国的首都是北京。", "中 国 的 首 都 是 北 京"),
        ("iPhone手机 2008年", "iphone 手 机 2008 年"),
        ("東京タワー Xーー〆2", "東 京 タ ワ ー x ー ー 〆 2"),
        ("ﾄﾞｲﾂ", "ド イ ツ"),  # halfwidth kana with a voiced sound mark
        ("ＦＩＦＡ　２０２２", "fifa 2022"),
        ("น้ำ", "น้\u0e4d า"),  # NFKC parts the vowel
        ("ພາສາລາວ", "ພ າ ສ າ ລ າ ວ"),
        ("ភ្នំពេញ", "ភ្ នំ ពេ ញ"),
        ("မြန်မာ", "မြ န် မာ"),
        ("서울은 수도입니다", "서울은 수도입니다"),
        ("हिन्दी भाषा।", "हिन्दी भाषा"),
        ("தமிழ்", "தமிழ்"),
        ("كِتَاب", "كِتَاب"),
        ("שָׁלוֹם עולם", "שָׁלוֹם עולם"),
        ("İstanbul ISPARTA Iğdır", "istanbul isparta iğdır"),
        ("Straße STRASSE ẞ", "straße strasse ß"),
        ("ΟΔΟΣ Σίσυφος", "οδος σίσυφος"),
        (unicodedata.normalize("NFD", "Hà Nội"), "hà nội"),
        ("zero\u200bwidth soft\u00adhyphen می\u200cخواهم", "zerowidth softhyphen میخواهم"),
        ("J\u030cava", "\u01f0ava"),  # composed only in lower case
        ("O´Brien ´´ \u0301x", "o brien x"),  # a word begins with no mark
        ("葛\U000e0100飾 ❤\ufe0f", "葛 飾"),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert words(pl.Series([text])).to_list() == [unicodedata.normalize("NFC", expected).split(" ")]


def scores(prediction: str, answer: str) -> dict[str, float]:
    frame = pl.DataFrame({"prediction": [prediction], "answers": [[answer]]})
    return score_answers(frame).select(*METRICS).row(0, named=True)


@pytest.mark.parametrize(
    ("language", "sentence", "answer", "wrong"),
    [
        ("Chinese", "中国的首都是北京。", "北京", "中国的首都是上海。"),
        ("Chinese, a number", "这座桥建于１９６８年。", "1968年", "这座桥建于1986年。"),
        ("Chinese, Latin letters", "答案是“Paris”，不是伦敦。", "Paris", "答案是“Parisian”。"),
        ("Japanese", "日本の首都は東京です。", "「東京」", "日本の首都は京都です。"),
        ("Japanese, kana", "それはｴﾍﾞﾚｽﾄ山です", "エベレスト山", "それは富士山です"),
        ("Thai", "เมืองหลวงของไทยคือกรุงเทพฯครับ", "กรุงเทพฯ", "เมืองหลวงคือเชียงใหม่"),
        ("Lao", "ນະຄອນຫຼວງແມ່ນວຽງຈັນ", "ວຽງຈັນ", "ແມ່ນປາກເຊ"),
        ("Khmer", "រាជធានីគឺភ្នំពេញ។", "ភ្នំពេញ", "គឺសៀមរាប។"),
        ("Burmese", "မြို့တော်မှာနေပြည်တော်ဖြစ်သည်။", "နေပြည်တော်", "ရန်ကုန်ဖြစ်သည်။"),
        ("Hindi", "भारत की राजधानी नई दिल्ली है।", "नई दिल्ली", "दिन हम नद"),
        ("Arabic", "العاصمة هي «القاهرة»، نعم", "القاهرة", "العاصمة هي دمشق"),
        ("Arabic, vowels", "الكلمة هي كِتَابٌ.", "كِتَابٌ", "الكلمة هي كُتُبٌ."),
        ("Hebrew, points", "המילה היא שָׁלוֹם.", "שָׁלוֹם", "המילה היא שָׁבוּעַ."),
        ("Turkish", "Başkent değil, İSTANBUL.", "İstanbul", "Başkent İzmir."),
        ("German", "Sie heißt „Große Straße“.", "große Straße", "Sie heißt „Gasse“."),
        ("Greek", "Ο ήρωας είναι ο ΟΔΥΣΣΕΑΣ.", "Οδυσσεας", "Ο ήρωας είναι ο ΑΙΑΣ."),
        (
            "Vietnamese, decomposed",
            unicodedata.normalize("NFD", "Thủ đô là Hà Nội."),
            "Hà Nội",
            "Thủ đô là Đà Nẵng.",
        ),
        ("Russian", "Столица — «Москва».", "Москва", "Столица — Минск."),
        ("French", "C’est l’œuvre de « Molière ».", "Molière", "C’est de « Racine »."),
        ("English, quotes", "“Paris” is the capital", "Paris", "“Parisian” is no city"),
        ("English, years", "He lived 1990–1995.", "1990-1995", "He lived 1991–1996."),
        ("English, accent", "Beyonce\u0301 sang it", "Beyonc\u00e9", "Rihanna sang it"),
    ],
)
def test_right_and_wrong_answers(language: str, sentence: str, answer: str, wrong: str) -> None:
    right = scores(sentence, answer)
    assert right["token_recall"] == right["contains"] == right["substring_recall"] == 1.0
    assert 0.0 < right["f1"] < 1.0
    assert right["exact_match"] == 0.0
    assert set(scores(f"“{answer}”。", answer).values()) == {1.0}
    missed = scores(wrong, answer)
    assert missed["contains"] == missed["exact_match"] == missed["substring_recall"] == 0.0
    assert missed["token_recall"] < 1.0


@pytest.mark.parametrize(
    ("text", "answer", "stands"),
    [
        ("“Paris” is", "Paris", True),
        ("South Korea", "K", False),
        ("Rock ’n’ Roll", "Rock 'n' Roll", True),
        ("O’Brien", "O'Brien", True),
        ("1990–1995", "1995", True),
        ("1990–1995", "1990-1995", True),
        ("the capital—Paris—is large", "Paris", True),
        ("2008、2012", "2012", True),
        ("བོད་ཡིག་", "ཡིག", True),
        ("ሰላም፡ለዓለም", "ሰላም", True),
        ("3.14", "14", False),
        ("３．１４", "14", False),
        ("北京大学", "京大", True),
        ("ก่า", "กา", False),  # the tone mark belongs to the letter
        ("Tシャツ", "シャツ", True),
        ("Obama’s", "Obama's", True),
        ("a\nb", "b", True),
        ("x—y", "x y", True),
        ("x—\ny", "x\ny", True),
    ],
)
def test_answer_stands_in_text(text: str, answer: str, stands: bool) -> None:
    form = squad_form(squad_tokens(pl.Series([answer])))[0]
    assert (form in searchable(pl.Series([text]))[0]) is stands
    assert scores(text, answer)["contains"] == float(stands)


def test_plain_letters_need_no_folding() -> None:
    """What makes the short way right: nothing in it changes, joins or is a mark."""
    every = pl.Series([chr(c) for c in range(0x20, 0x110000) if not 0xD800 <= c < 0xE000])
    plain = every.filter(~every.str.contains(normalize._UNUSUAL)).to_list()
    assert len(plain) > 12_000
    for sign in plain:
        assert reference.fold(sign) == sign.lower()
        assert not reference.is_unspaced(sign)
        assert unicodedata.category(sign)[0] in "LNP" or sign in " $+<=>^`|~", (
            f"{sign} U+{ord(sign):x}"
        )
    by_rule = words(pl.Series(plain)).to_list()
    assert by_rule == [[sign.lower()] if reference.is_word_sign(sign) else [] for sign in plain]


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=30))
def test_words_of_words_are_the_same(text: str) -> None:
    found = words(pl.Series([text])).to_list()[0]
    assert words(pl.Series([" ".join(found)])).to_list()[0] == found
    assert found == reference.words(text)


def test_null_and_empty() -> None:
    text = pl.Series("text", [None, "", "北京"], dtype=pl.String)
    assert words(text).to_list() == [None, [], ["北", "京"]]
    assert searchable(text.fill_null("")).to_list() == ["", "", " 北 京 "]


_PIECES = st.sampled_from(
    "a the U.S. us o'neil O’Neil 1990–1995 1990-1995 京 北京 é É _ - x-y «q» İ ﬁ …".split()
    + ["zero\u200bwidth", "\n"]
)


@given(st.lists(_PIECES, max_size=8), st.lists(_PIECES, max_size=3))
def test_a_text_that_holds_an_answer_has_its_tokens_in_the_skeleton(
    pieces: list[str], wanted: list[str]
) -> None:
    text = pl.Series("text", [" ".join(pieces)], dtype=pl.String)
    tokens = squad_tokens(pl.Series("answer", [" ".join(wanted)], dtype=pl.String))
    form = squad_form(tokens)[0]
    found = form != "" and form in searchable(text)[0]
    bare = skeleton(text)[0]
    if found and bare is not None:
        assert all(token in bare for token in tokens[0])
    assert (bare is None) == normalize.is_unusual(text)[0]
