"""Write the demo dataset from the facts tables in ``scripts/demo_facts``.

The result is deterministic: the phrasing of every sentence is chosen by a hash of a seed, the
document id and the place of the sentence, so an edit of one row leaves all other rows alone.

Usage:
    python scripts/make_demo_dataset.py [--output PATH] [--check]
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SEED = "slm-vllm-demo-1"
FACTS_DIR = Path(__file__).resolve().parent / "demo_facts"
DEFAULT_OUTPUT = (
    Path(__file__).resolve().parent.parent / "slm_vllm" / "datasets" / "data" / "demo.jsonl"
)

Row = dict[str, str]

ELEMENT_SPELLINGS = {
    "aluminium": ["aluminium", "aluminum"],
    "sulfur": ["sulfur", "sulphur"],
    "tungsten": ["tungsten", "wolfram"],
    "mercury": ["mercury", "quicksilver"],
}
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)

# Sources give these years with "about" or differ by the calendar used, so nothing asks for them.
UNCERTAIN_YEARS = {"Dante Alighieri", "Isaac Newton"}
# Modern names of states that did not exist under them when most of these people were born.
LATER_STATES = {"Germany", "Italy", "Poland", "the Czech Republic"}


@dataclass(frozen=True)
class Question:
    """One question about a document.

    Attributes:
        fact: Short name of the fact asked for, part of the question id.
        text: The question.
        answers: Accepted spellings, the usual one first.
        answer_type: Kind of answer, such as ``year`` or ``person``.
        paragraph: Index of the paragraph that states the fact.
    """

    fact: str
    text: str
    answers: list[str]
    answer_type: str
    paragraph: int


@dataclass(frozen=True)
class Entry:
    """One document with its questions.

    Attributes:
        topic: Topic name, such as ``elements``.
        document_id: Stable id of the document.
        title: Title of the document.
        paragraphs: Paragraphs of the text in order.
        questions: Questions whose gold document this is.
    """

    topic: str
    document_id: str
    title: str
    paragraphs: list[str]
    questions: list[Question] = field(default_factory=list)


def read_table(name: str) -> list[Row]:
    """Read one facts table.

    Args:
        name: File stem of the table in ``scripts/demo_facts``.

    Returns:
        The rows as dictionaries of column to cell.
    """
    with (FACTS_DIR / f"{name}.tsv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))


def slug(text: str) -> str:
    """Return a lower-case ASCII id made from a name."""
    text = text.replace("ø", "o").replace("ł", "l").replace("Ł", "L")
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def parts(cell: str) -> list[str]:
    """Split a cell that holds several values separated by a bar."""
    return [value for value in cell.split("|") if value]


def draw(key: str, count: int) -> int:
    """Return a number below ``count`` that depends only on the seed and the key."""
    digest = hashlib.sha256(f"{SEED}|{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % count


def pick(key: str, options: Sequence[str]) -> str:
    """Choose one of several phrasings by the seed."""
    return options[draw(key, len(options))]


def shuffled(key: str, sentences: Sequence[str]) -> list[str]:
    """Return the non-empty sentences in an order that depends only on the seed and the key."""
    kept = [sentence for sentence in sentences if sentence]
    return sorted(kept, key=lambda sentence: draw(f"{key}|{sentence}", 1 << 60))


def join_names(names: Sequence[str]) -> str:
    """Join names as in running English: ``a``, ``a and b``, ``a, b and c``."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def article(noun: str) -> str:
    """Return the noun with the indefinite article before it."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def sentence_case(text: str) -> str:
    """Return the text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def paragraph(*sentences: str) -> str:
    """Join non-empty sentences to a paragraph, each starting with a capital letter."""
    return " ".join(sentence_case(sentence) for sentence in sentences if sentence)


def count_of(number: int, noun: str) -> str:
    """Return a count with its noun, such as ``one year`` or ``25 years``."""
    word = NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else f"{number:,}"
    return f"{word} {noun}" if number == 1 else f"{word} {noun}s"


def choose(own: Question, others: Sequence[Question], key: str, wanted: int) -> list[Question]:
    """Keep the question written for the row and some of the templated ones.

    Args:
        own: The question from the facts table.
        others: Questions made from templates.
        key: Seed key of the document.
        wanted: Number of templated questions to keep.

    Returns:
        The templated questions, then the row's own.
    """
    ranked = sorted(others, key=lambda question: draw(f"{key}|choose|{question.fact}", 1 << 60))
    return [*ranked[:wanted], own]


def own_question(row: Row, paragraph_index: int, answer_type: str = "entity") -> Question:
    """Build the question that the facts table spells out."""
    answers = parts(row["answers"])
    if answers[0].isdigit():
        answer_type = "year"
    return Question("detail", row["question"], answers, answer_type, paragraph_index)


def neighbours_in(rows: Sequence[Row], row: Row, column: str) -> list[Row]:
    """Return the other rows that share the value of a column with this row."""
    return [other for other in rows if other is not row and other[column] == row[column]]


def element_siblings(rows: Sequence[Row], row: Row, key: str) -> str:
    """Return a sentence about other elements of the same group, or of the same period."""
    group = [plain_name(other).lower() for other in neighbours_in(rows, row, "group")][:4]
    if group:
        return pick(
            key,
            [
                f"Other members of group {row['group']} include {join_names(group)}.",
                f"It shares group {row['group']} of the table with {join_names(group)}, among "
                "others.",
            ],
        )
    period = [plain_name(other).lower() for other in neighbours_in(rows, row, "period")][:3]
    return f"In the same row of the table stand {join_names(period)}, among others."


def plain_name(row: Row) -> str:
    """Return the name without a bracketed qualifier."""
    return row["name"].split(" (")[0]


def element_identity(row: Row, names: Sequence[str], siblings: str, key: str) -> str:
    """Return the paragraph with symbol, atomic number and place in the table.

    Args:
        row: Facts of the element.
        names: Names of all elements in order of atomic number.
        siblings: Sentence about related elements.
        key: Seed key of the document.

    Returns:
        The text of the paragraph.
    """
    name, symbol, number = plain_name(row), row["symbol"], int(row["number"])
    category, group, period = row["category"], row["group"], row["period"]
    following = names[number]
    opening = pick(
        f"{key}|open",
        [
            f"{name} is a chemical element with the symbol {symbol} and atomic number {number}.",
            f"{name}, whose chemical symbol is {symbol}, is the element with atomic number "
            f"{number}.",
            f"The chemical element {name.lower()} has the symbol {symbol} and stands at atomic "
            f"number {number} in the periodic table.",
        ],
    )
    place = pick(
        f"{key}|place",
        [
            f"It is {article(category)} found in group {group} and period {period}.",
            f"Chemists class it as {article(category)}, and it belongs to group {group} and "
            f"period {period} of the table.",
            f"As {article(category)} it sits in period {period}, in the column numbered {group}.",
        ],
    )
    if number == 1:
        order = f"No element comes before it, and {following} comes directly after it."
    else:
        before = names[number - 2]
        order = pick(
            f"{key}|order",
            [
                f"In order of atomic number it comes after {before} and before {following}.",
                f"Its neighbours in the row of atomic numbers are {before} on one side and "
                f"{following} on the other.",
                f"It follows {before}, and the next element in the table is {following}.",
            ],
        )
    atom = pick(
        f"{key}|atom",
        [
            f"A neutral atom of it has {count_of(number, 'proton')} and "
            f"{count_of(number, 'electron')}.",
            f"The nucleus of each of its atoms holds {count_of(number, 'proton')}, and a neutral "
            f"atom carries {count_of(number, 'electron')}.",
        ],
    )
    return paragraph(opening, *shuffled(key, [place, order, atom]), siblings)


def element_entry(rows: Sequence[Row], index: int) -> Entry:
    """Build the document and the questions of one chemical element."""
    row = rows[index]
    name = plain_name(row)
    lower = name.lower()
    key = f"element-{slug(name)}"
    order = [entry["name"] for entry in read_table("element_names")]
    origin = pick(
        f"{key}|origin",
        [
            f"The name {lower} comes from {row['origin']}.",
            f"The origin of the name {lower} is {row['origin']}.",
            f"{name} owes its name to {row['origin']}.",
        ],
    )
    past = paragraph(origin, row["history"])
    # After the word origin, a leading "it" would seem to mean the word rather than the element.
    if row["history"].startswith("It "):
        past = paragraph(f"{name} {row['history'].removeprefix('It ')}", origin)
    uses = pick(
        f"{key}|uses",
        [
            f"Today {lower} is used for {row['uses']}.",
            f"Important uses of {lower} include {row['uses']}.",
            f"People use {lower} in many ways, among them {row['uses']}.",
        ],
    )
    closing = pick(
        f"{key}|close",
        [
            "Like every element it is defined by the number of protons in its atoms, whatever "
            "the number of neutrons.",
            "Its chemical behaviour depends above all on the outermost electrons of its atoms.",
            "Its place in the table reflects the way in which electrons are arranged around its "
            "nucleus.",
        ],
    )
    texts = [
        element_identity(row, order, element_siblings(rows, row, f"{key}|sib"), key),
        past,
        paragraph(uses, row["note"], closing),
    ]
    spellings = ELEMENT_SPELLINGS.get(lower, [lower])
    by_symbol = Question(
        "by-symbol",
        pick(
            f"{key}|q1",
            [
                f"Which element has the symbol {row['symbol']}?",
                f"What element does the chemical symbol {row['symbol']} stand for?",
            ],
        ),
        spellings,
        "entity",
        0,
    )
    by_number = Question(
        "by-number",
        pick(
            f"{key}|q2",
            [
                f"What element has atomic number {row['number']}?",
                f"Which chemical element has {count_of(int(row['number']), 'proton')} in its "
                "nucleus?",
            ],
        ),
        spellings,
        "entity",
        0,
    )
    number = Question(
        "atomic-number",
        f"What is the atomic number of {lower}?",
        number_spellings(int(row["number"])),
        "number",
        0,
    )
    symbol = Question(
        "symbol", f"What is the chemical symbol for {lower}?", [row["symbol"]], "symbol", 0
    )
    others = [by_number, symbol, number, by_symbol]
    # A one-letter answer is found in any text, so such symbols are asked for in one case only.
    if len(row["symbol"]) == 1 and row["symbol"] not in {"K", "W"}:
        others.remove(symbol)
    own = own_question(row, best_paragraph(row, texts))
    return Entry("elements", key, row["name"], texts, choose(own, others, key, 1 + index % 2))


def best_paragraph(row: Row, texts: Sequence[str]) -> int:
    """Return the index of the later paragraph that answers the question of the facts table.

    A paragraph that holds an answer goes before one that does not, then the one that shares more
    words with the question wins.
    """
    answers = parts(row["answers"])
    asked = set(re.findall(r"\w{4,}", row["question"].lower()))

    def fit(index: int) -> tuple[bool, int]:
        names_it = any(mentions(texts[index], answer) for answer in answers)
        shared = asked & set(re.findall(r"\w{4,}", texts[index].lower()))
        return names_it, len(shared)

    return max((1, 2), key=fit)


def number_spellings(number: int) -> list[str]:
    """Return a number in figures and, if it is small, in words."""
    return [str(number), NUMBER_WORDS[number]] if number < len(NUMBER_WORDS) else [str(number)]


def mentions(text: str, phrase: str) -> bool:
    """Return whether a text holds a phrase as whole words, whatever the case."""
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


def border_sentence(row: Row, key: str) -> str:
    """Return a sentence about the neighbours of a country."""
    name, cell = row["name"], row["borders"]
    if cell.startswith("sea:"):
        names = join_names(parts(cell.removeprefix("sea:")))
        return f"{name} has no land borders; across the sea its neighbours include {names}."
    countries = parts(cell)
    if len(countries) == 1:
        return f"{name} has a land border with only one other country, {countries[0]}."
    return pick(
        key,
        [
            f"{name} shares land borders with {join_names(countries)}.",
            f"The neighbours of {name} on land are {join_names(countries)}.",
            f"By land {name} borders on {join_names(countries)}.",
        ],
    )


def country_overview(rows: Sequence[Row], row: Row, key: str) -> str:
    """Return the paragraph with capital, currency, language and highest mountain."""
    name, capital = row["name"], parts(row["capital"])[0]
    money = parts(row["currency"])[0]
    opening = pick(
        f"{key}|open",
        [
            f"{name} is a country in {row['region']} whose capital is {capital}.",
            f"{name} is a state in {row['region']}, and its capital is {capital}.",
            f"{capital} is the capital of {name}, a country in {row['region']}.",
        ],
    )
    currency = pick(
        f"{key}|money",
        [
            f"The official currency of {name} is the {money}.",
            f"Prices in {name} are given in the national currency, the {money}."
            if money not in {"euro", "United States dollar"}
            else f"People in {name} pay with the {money}, which is the official currency.",
            f"As its currency the country uses the {money}.",
        ],
    )
    language = pick(
        f"{key}|lang",
        [
            f"Official business is done mainly in {join_names(parts(row['language']))}.",
            f"Government offices work mainly in {join_names(parts(row['language']))}.",
        ],
    )
    same = [other["name"] for other in neighbours_in(rows, row, "region")]
    regional = f"Other countries of the same region are {join_names(same[:3])}." if same else ""
    if len(same) == 1:
        regional = f"Another country of the same region is {same[0]}."
    return paragraph(opening, *shuffled(key, [currency, language]), regional)


def country_land(row: Row, key: str) -> str:
    """Return the paragraph about borders and the highest mountain."""
    peak = ""
    if row["peak"]:
        top = parts(row["peak"])[0]
        peak = pick(
            f"{key}|peak",
            [
                f"The highest point of the country is {top}.",
                f"{top} is the highest elevation in {row['name']}.",
                f"No point in {row['name']} is higher than {top}.",
            ],
        )
    return paragraph(border_sentence(row, f"{key}|border"), peak)


def country_context(rows: Sequence[Row], row: Row, key: str) -> str:
    """Return a paragraph that compares a country with two others of the table."""
    ranked = sorted(
        (other for other in rows if other is not row),
        key=lambda other: (other["region"] != row["region"], draw(key + other["name"], 1 << 60)),
    )
    first, second, third = ranked[:3]
    last = (
        f" {third['name']} lies in {third['region']}, and its government sits in "
        f"{parts(third['capital'])[0]}."
    )
    comparison = pick(
        f"{key}|compare",
        [
            f"One may compare {row['name']} with {first['name']} and {second['name']}. "
            f"{parts(first['capital'])[0]} is the seat of the {first['adjective']} state, and in "
            f"{second['name']} people pay with the {parts(second['currency'])[0]}.",
            f"{row['name']} may be set beside {first['name']}, whose capital is "
            f"{parts(first['capital'])[0]}, and {second['name']}, whose currency is the "
            f"{parts(second['currency'])[0]}.",
            f"Conditions elsewhere differ from those in {row['name']}: {first['name']} is governed "
            f"from {parts(first['capital'])[0]}, for example, and {second['name']} uses the "
            f"{parts(second['currency'])[0]} as its money.",
        ],
    )
    return comparison + last


def country_entry(rows: Sequence[Row], index: int) -> Entry:
    """Build the document and the questions of one country."""
    row = rows[index]
    name, capitals, money = row["name"], parts(row["capital"]), parts(row["currency"])
    key = f"country-{slug(name)}"
    notes = paragraph(
        pick(
            f"{key}|notes",
            [
                f"{name} has a history and a landscape of its own.",
                f"Much can be told about {name}.",
                f"{name} differs in many ways from the countries around it.",
                f"{name} is known abroad for several things.",
            ],
        ),
        row["note1"],
        row["note2"],
    )
    texts = [
        country_overview(rows, row, key),
        country_land(row, key),
        notes,
        country_context(rows, row, key),
    ]
    questions = [Question("capital", f"What is the capital of {name}?", capitals, "place", 0)]
    if row["currency_unique"] == "y":
        text = f"Which country uses the {money[0]} as its currency?"
        questions.append(Question("by-currency", text, [name], "place", 0))
    else:
        text = pick(
            f"{key}|q1",
            [f"What is the currency of {name}?", f"Which currency is used in {name}?"],
        )
        questions.append(Question("currency", text, money, "entity", 0))
    if row["peak"]:
        text = f"What is the highest point in {name}?"
        questions.append(Question("peak", text, parts(row["peak"]), "place", 1))
    if not mentions(capitals[0], name):
        text = f"Which country has {capitals[0]} as its capital?"
        questions.append(Question("by-capital", text, [name], "place", 0))
    questions = [q for q in questions if not any(mentions(q.text, a) for a in q.answers)]
    chosen = choose(own_question(row, 2), questions, key, 1 + index % 2)
    return Entry("countries", key, name, texts, chosen)


def metre_spellings(height: int) -> list[str]:
    """Return a height in metres in the spellings that people use."""
    return [
        spelling
        for figures in (f"{height:,}", str(height))
        for spelling in (f"{figures} metres", f"{figures} m", f"{figures} meters", figures)
    ]


def spoken_name(row: Row) -> str:
    """Return the name of a mountain as it is used in a sentence."""
    return f"the {row['name']}" if row["name"] == "Matterhorn" else row["name"]


def mountain_overview(row: Row, name: str, key: str) -> str:
    """Return the paragraph with the height and the place of a mountain."""
    height = f"{int(row['height']):,}"
    aliases = parts(row["aliases"])
    alias = f"Another name for it is {aliases[-1]}." if aliases else ""
    if aliases and (mentions(row["name"], aliases[-1]) or mentions(aliases[-1], row["name"])):
        alias = ""
    chain = row["range"]
    if chain.startswith("no "):
        chain_sentence = "It stands alone and belongs to no larger range."
    else:
        chain_sentence = pick(
            f"{key}|range",
            [f"It is part of {chain}.", f"The range to which it belongs is {chain}."],
        )
    on_border = row["location"].startswith("the border")
    place = f"{'on' if on_border else 'in'} {row['location']}"
    opening = pick(
        f"{key}|open",
        [
            f"{name} is a mountain {place}, with a height of {height} metres above sea level.",
            f"{name} rises to {height} metres above sea level {place}.",
            f"At {height} metres above sea level, {name} is a famous mountain {place}.",
        ],
    )
    return paragraph(opening, chain_sentence, alias)


def mountain_context(rows: Sequence[Row], row: Row, name: str, key: str) -> str:
    """Return a paragraph about mountains of the table close in height."""
    height = int(row["height"])
    others = sorted(
        (other for other in rows if other is not row),
        key=lambda other: abs(int(other["height"]) - height),
    )[:3]
    first, second, third = others
    gap = abs(int(first["height"]) - height)
    relation = "higher" if int(first["height"]) > height else "lower"
    return paragraph(
        pick(
            f"{key}|ctx",
            [
                f"Among well-known mountains one may name {spoken_name(first)} beside {name}.",
                f"In lists of great mountains {name} is found not far from {spoken_name(first)}.",
            ],
        ),
        f"{spoken_name(first)} is {count_of(gap, 'metre')} {relation} and was first climbed in "
        f"{first['year']}.",
        f"{spoken_name(second)}, whose top lies at {int(second['height']):,} metres, was first "
        f"climbed in {second['year']}, and the height of {spoken_name(third)} is "
        f"{int(third['height']):,} metres.",
    )


def mountain_entry(rows: Sequence[Row], index: int) -> Entry:
    """Build the document and the questions of one mountain."""
    row = rows[index]
    name, year, height = spoken_name(row), row["year"], int(row["height"])
    key = f"mountain-{slug(row['name'])}"
    phrase = row["climber_phrase"].replace("{c}", row["climbers"])
    ascent = pick(
        f"{key}|ascent",
        [
            f"The first ascent of {name} came in {year}, when {phrase}.",
            f"{name} was climbed for the first time in {year}, when {phrase}.",
            f"Nobody is known to have climbed {name} before {year}, the year in which {phrase}.",
        ],
    )
    texts = [
        mountain_overview(row, name, key),
        paragraph(ascent, row["note1"], row["note2"]),
        mountain_context(rows, row, name, key),
    ]
    names = [row["name"], *parts(row["aliases"])]
    who = row["climbers"]
    questions = [
        Question("height", f"How high is {name} in metres?", metre_spellings(height), "number", 0),
        Question(
            "by-ascent", f"Which mountain was first climbed in {year} by {who}?", names, "place", 1
        ),
        Question("ascent-year", f"In which year was {name} first climbed?", [year], "year", 1),
        Question("by-height", f"Which mountain is {height:,} metres high?", names, "place", 0),
    ]
    if row["climber_answers"]:
        text = f"Who made the first ascent of {name}?"
        questions.insert(2, Question("climbers", text, parts(row["climber_answers"]), "person", 1))
    return Entry(
        "mountains", key, row["name"], texts, choose(own_question(row, 1), questions, key, 2)
    )


def river_context(rows: Sequence[Row], row: Row, key: str) -> str:
    """Return a paragraph about three other rivers of the table."""
    name = row["name"]
    same_mouth = [r for r in neighbours_in(rows, row, "mouth")]
    rest = sorted(
        (r for r in rows if r is not row and r not in same_mouth),
        key=lambda other: draw(f"{key}|{other['name']}", 1 << 60),
    )
    first, second, third = [*same_mouth, *rest][:3]
    verb = "too flows" if first in same_mouth else "by contrast flows"
    return paragraph(
        pick(
            f"{key}|ctx",
            [
                f"The {name} is often mentioned together with other great rivers.",
                f"It helps to set the {name} beside other rivers.",
            ],
        ),
        f"The {first['name']} {verb} into {first['mouth']}.",
        f"The {second['name']} begins in {second['source']}"
        if second["source"].startswith(("Lake", "northwestern"))
        else f"The {second['name']} has its source in {second['source']}",
    ) + (
        f" and passes {join_names(parts(second['city']))}, while "
        f"{join_names(parts(third['city']))} stand on the {third['name']}. The mouth "
        f"of the {third['name']} lies on {third['mouth']}."
    )


def river_entry(rows: Sequence[Row], index: int) -> Entry:
    """Build the document and the questions of one river."""
    row = rows[index]
    name, mouth, source = row["name"], row["mouth"], row["source"]
    key = f"river-{slug(name)}"
    countries, cities = parts(row["countries"]), parts(row["city"])
    opening = pick(
        f"{key}|open",
        [
            f"The {name} is a river that rises in {source} and empties into {mouth}.",
            f"Rising in {source}, the {name} flows to {mouth}.",
            f"The {name} is a river with its source in {source} and its mouth on {mouth}.",
        ],
    )
    course = pick(
        f"{key}|course",
        [
            f"Countries on its course include {join_names(countries)}.",
            f"On its way to the sea it touches {join_names(countries)}.",
        ],
    )
    if len(countries) == 1:
        course = f"Its main course lies in {countries[0]}."
    towns = pick(
        f"{key}|towns",
        [
            f"Cities on the banks of the {name} include {join_names(cities)}.",
            f"The {name} flows past {join_names(cities)}.",
        ],
    )
    feeders = f"Its tributaries include {join_names(parts(row['tributaries']))}."
    texts = [
        paragraph(opening, *shuffled(key, [course, feeders])),
        paragraph(towns, row["note1"], row["note2"]),
        river_context(rows, row, key),
    ]
    names = [name, f"the {name}", f"River {name}", f"{name} River"]
    into = pick(
        f"{key}|q1",
        [
            f"Into which body of water does the {name} flow?",
            f"Where does the river {name} end?",
        ],
    )
    questions = [
        Question("mouth", into, parts(row["mouth_answers"]), "place", 0),
        Question("by-cities", f"Which river flows past {join_names(cities)}?", names, "place", 1),
        Question(
            "by-source",
            f"Which river rises in {source} and empties into {mouth}?",
            names,
            "place",
            0,
        ),
    ]
    title = f"{name} (river)"
    return Entry("rivers", key, title, texts, choose(own_question(row, 1), questions, key, 2))


def planet_entry(rows: Sequence[Row], index: int) -> Entry:
    """Build the document and the questions of one planet."""
    row = rows[index]
    name, place = plain_name(row), ORDINALS[int(row["order"]) - 1]
    key = f"planet-{slug(name)}"
    named = f"the {name}" if name == "Earth" else name
    before = plain_name(rows[index - 1]) if index else ""
    after = plain_name(rows[index + 1]) if index + 1 < len(rows) else ""
    if before and after:
        between = f"Its path around the Sun lies between those of {before} and {after}."
    else:
        between = f"Its nearest neighbour among the planets is {before or after}."
    same = [plain_name(other) for other in neighbours_in(rows, row, "kind")]
    opening = pick(
        f"{key}|open",
        [
            f"{named} is the {place} planet from the Sun and {article(row['kind'])}.",
            f"{named}, {article(row['kind'])}, is the {place} planet counted from the Sun.",
        ],
    )
    alike = f"Among the eight planets {join_names(same)} {be(same)} of the same kind."
    features = f"{named} differs in several ways from the other bodies that circle the Sun."
    moons = parts(row["moons"])
    known = f"The best-known natural satellites of {named} are {join_names(moons)}."
    if len(moons) < 2:
        known = f"The only natural satellite of {named} is {moons[0]}." if moons else ""
    texts = [
        paragraph(opening, between, alike),
        paragraph(f"{named} has been studied for a long time.", row["discovery"], row["visitor"]),
        paragraph(features, row["note1"], row["note2"], known),
    ]
    text = pick(
        f"{key}|q1",
        [f"Which is the {place} planet from the Sun?", f"What planet comes {place} from the Sun?"],
    )
    spellings = [name, f"the {name}"] if name == "Earth" else [name]
    ordinal = Question("by-order", text, spellings, "place", 0)
    own = own_question(row, best_paragraph(row, texts))
    return Entry("planets and moons", key, row["name"], texts, [ordinal, own])


def be(names: Sequence[str]) -> str:
    """Return the form of the verb that fits the number of names."""
    return "is" if len(names) == 1 else "are"


def moon_questions(rows: Sequence[Row], row: Row) -> list[Question]:
    """Build the templated questions of one moon, leaving out those with two right answers."""
    name, planet, who, year = row["name"], row["planet"], row["discoverer"], row["year"]
    questions = [
        Question("year", f"In which year was {planet}'s moon {name} discovered?", [year], "year", 0)
    ]
    if row["discoverer_answers"]:
        questions.append(
            Question(
                "discoverer",
                f"Who discovered the moon {name}?",
                parts(row["discoverer_answers"]),
                "person",
                0,
            )
        )
    if sum((r["discoverer"], r["year"]) == (who, year) for r in rows) == 1:
        text = f"Which moon did {who} discover in {year}?"
        questions.append(Question("by-discovery", text, [name], "place", 0))
    if sum((r["planet"], r["origin"]) == (planet, row["origin"]) for r in rows) == 1:
        text = f"Which moon of {planet} is named after {row['origin']}?"
        questions.append(Question("by-name-origin", text, [name], "place", 0))
    questions.append(
        Question("planet", f"Which planet does the moon {name} orbit?", [planet], "place", 0)
    )
    return questions


def moon_entry(rows: Sequence[Row], index: int) -> Entry:
    """Build the document and the questions of one moon."""
    row = rows[index]
    name, planet, who, year = row["name"], row["planet"], row["discoverer"], row["year"]
    key = f"moon-{slug(name)}"
    siblings = neighbours_in(rows, row, "planet")
    opening = pick(
        f"{key}|open",
        [
            f"{name} is a moon of {planet} that was discovered by {who} in {year}.",
            f"{name} is one of the natural satellites of {planet}; {who} discovered it in {year}.",
            f"In {year} {who} discovered {name}, a moon of {planet}.",
        ],
    )
    origin = pick(
        f"{key}|origin",
        [f"It is named after {row['origin']}.", f"Its name recalls {row['origin']}."],
    )
    family = join_names([other["name"] for other in siblings[:4]])
    nearest = siblings[:2]
    if len(nearest) == 1:
        found = f"{nearest[0]['name']}, also a moon of {planet}, was found in {nearest[0]['year']}."
    elif nearest[0]["year"] == nearest[1]["year"]:
        found = (
            f"Of the other satellites of {planet}, {nearest[0]['name']} and {nearest[1]['name']} "
            f"were both found in {nearest[0]['year']}."
        )
    else:
        found = (
            f"Of the other satellites of {planet}, {nearest[0]['name']} was found in "
            f"{nearest[0]['year']} and {nearest[1]['name']} in {nearest[1]['year']}."
        )
    further = f"The planet {planet} has other satellites too, such as {family}."
    far = [r for r in rows if r["planet"] != planet]
    stranger, second = far[draw(f"{key}|f", len(far))], far[draw(f"{key}|g", len(far) - 1)]
    if second is stranger:
        second = far[-1] if stranger is not far[-1] else far[0]
    texts = [
        paragraph(opening, origin, further),
        paragraph(
            pick(
                f"{key}|notes",
                [
                    f"{name}, which circles {planet}, has drawn much attention from astronomers.",
                    f"Astronomers know {name}, a companion of {planet}, for several reasons.",
                    f"Much of what is known about {name} comes from spacecraft that visited "
                    f"{planet}.",
                ],
            ),
            row["note1"],
            row["note2"],
        ),
        paragraph(
            found,
            f"Elsewhere in the Solar System, {stranger['discoverer']} discovered "
            f"{stranger['name']}, a satellite of {stranger['planet']}, in {stranger['year']}.",
            f"{second['name']}, which circles {second['planet']}, has been known since "
            f"{second['year']} and is named after {second['origin']}.",
            "Names of this kind follow a custom by which satellites are called after figures of "
            "myth or literature.",
        ),
    ]
    chosen = choose(own_question(row, 1), moon_questions(rows, row), key, 1 + index % 2)
    return Entry("planets and moons", key, f"{name} (moon)", texts, chosen)


def birth_gap(person: Row, other: Row) -> str:
    """Return a sentence that sets the birth years of two people side by side."""
    years = int(other["born"]) - int(person["born"])
    if years == 0:
        return f"{other['name']} was born in the same year, {other['born']}."
    side = "after" if years > 0 else "before"
    return (
        f"{other['name']} was born in {parts(other['place'])[0]} in {other['born']}, "
        f"{count_of(abs(years), 'year')} {side} {person['name']}."
    )


def contemporaries(rows: Sequence[Row], person: Row, key: str) -> str:
    """Return a paragraph about people of the table who lived near in time."""

    def distance(other: Row) -> tuple[int, str]:
        return abs(int(other["born"]) - int(person["born"])), other["name"]

    *same, third = sorted(neighbours_in(rows, person, "topic"), key=distance)[:3]
    cross = min((r for r in rows if r["topic"] != person["topic"]), key=distance)
    work = parts(cross["works"])[0]
    noun = "painted" if cross["topic"] == "painters" else "wrote"
    return paragraph(
        pick(
            f"{key}|ctx",
            [
                f"Other well-known {person['topic']} came earlier or later.",
                f"Every history of the field names other {person['topic']} too.",
                f"{person['name']} can be placed in time by looking at other {person['topic']}.",
            ],
        ),
        *[birth_gap(person, other) for other in same],
        f"{third['name']}, {article(third['role'])}, died in {parts(third['death_place'])[0]} in "
        f"{third['died']}.",
        f"In another field, {cross['name']}, who {noun} {work}, lived from {cross['born']} to "
        f"{cross['died']}.",
    )


def life_sentences(row: Row, key: str) -> list[str]:
    """Return the sentences about birth, death and calling of one person."""
    name, he = row["name"], row["sex"]
    place, grave = parts(row["place"])[0], parts(row["death_place"])[0]
    land = row["country"]
    where = f"{place}, in what is now {land}," if land in LATER_STATES else f"{place}, {land},"
    role = article(row["role"])
    end = "there" if place == grave else f"in {grave}"
    return pick(
        f"{key}|life",
        [
            f"{name} ({row['born']}–{row['died']}) was {role}.#{he} was born in {where} in "
            f"{row['born']}#and died {end} in {row['died']}.",
            f"{name} was born in {where} in {row['born']}#and died {end} in {row['died']}.#"
            f"{he} is remembered as {role}.",
            f"{name} was {role}.#Born in {where} in {row['born']},#{he} died {end} in "
            f"{row['died']}.",
        ],
    ).split("#")


def join_life(pieces: Sequence[str]) -> str:
    """Join the pieces of a life, capitalising those that start a sentence."""
    text = ""
    for piece in pieces:
        start = not text or text.endswith(".")
        text += (" " if text else "") + (sentence_case(piece) if start else piece)
    return text


def people_questions(row: Row, singular: str, key: str) -> list[Question]:
    """Build the templated questions of one person."""
    name, born, died = row["name"], row["born"], row["died"]
    names = [name, *parts(row["aliases"])]
    work = parts(row["works"])[0]
    verb = {"composers": "composed", "painters": "painted"}.get(row["topic"], "wrote")
    place, grave = parts(row["place"]), parts(row["death_place"])
    questions = [
        Question("work", f"Who {verb} {work}?", names, "person", 1),
        Question(
            "birthplace",
            pick(f"{key}|q1", [f"Where was {name} born?", f"What is the birthplace of {name}?"]),
            place,
            "place",
            0,
        ),
        Question(
            "by-birth", f"Which {singular} was born in {place[0]} in {born}?", names, "person", 0
        ),
        Question("birth-year", f"In which year was {name} born?", [born], "year", 0),
        Question(
            "deathplace",
            f"Where did {name} die?",
            grave,
            "place",
            0,
        ),
        Question("death-year", f"In which year did {name} die?", [died], "year", 0),
    ]
    if name in UNCERTAIN_YEARS:
        questions = [q for q in questions if not re.search("year|by-birth", q.fact)]
    if mentions(name, place[0]):
        questions = [q for q in questions if q.fact not in {"birthplace", "by-birth"}]
    return questions


def people_entry(rows: Sequence[Row], index: int) -> Entry:
    """Build the document and the questions of one person."""
    row = rows[index]
    name, topic = row["name"], row["topic"]
    singular = topic.removesuffix("s")
    key = f"{singular}-{slug(name)}"
    works = parts(row["works"])
    if len(works) == 1:
        output = f"The best-known work of {name} is {works[0]}."
    else:
        output = pick(
            f"{key}|works",
            [
                f"The best-known works of {name} include {join_names(works)}.",
                f"Among the works for which {name} is remembered are {join_names(works)}.",
                f"{name} is the author of such works as {join_names(works)}."
                if topic in {"writers", "scientists"}
                else f"Famous works by {name} are {join_names(works)}.",
            ],
        )
    texts = [
        join_life(life_sentences(row, key)),
        paragraph(output, row["note1"], row["note2"]),
        contemporaries(rows, row, key),
    ]
    questions = people_questions(row, singular, key)
    chosen = choose(own_question(row, 1), questions, key, 1 + index % 2)
    return Entry(topic, key, name, texts, chosen)


BUILDERS: tuple[tuple[str, Callable[[Sequence[Row], int], Entry]], ...] = (
    ("elements", element_entry),
    ("countries", country_entry),
    ("mountains", mountain_entry),
    ("rivers", river_entry),
    ("planets", planet_entry),
    ("moons", moon_entry),
    ("people", people_entry),
)


def build_entries() -> list[Entry]:
    """Build all documents with their questions in a fixed order."""
    entries = []
    for table, builder in BUILDERS:
        rows = read_table(table)
        entries += [builder(rows, index) for index in range(len(rows))]
    return entries


def gold_paragraphs(entry: Entry, question: Question) -> list[str]:
    """Return the paragraphs that state the answer.

    Where a fact paragraph calls the entity only "it", the paragraph that names it comes first.

    Raises:
        ValueError: If no accepted spelling occurs in them.
    """
    found = [entry.paragraphs[question.paragraph]]
    if not any(mentions(found[0], answer) for answer in question.answers):
        found.insert(0, entry.paragraphs[0])
    if not any(mentions(text, answer) for text in found for answer in question.answers):
        raise ValueError(f"{entry.document_id}: no answer of {question.fact!r} in its paragraph")
    return found


def question_row(entry: Entry, question: Question) -> dict[str, object]:
    """Return one line of the dataset."""
    document = {
        "document_id": entry.document_id,
        "title": entry.title,
        "text": "\n\n".join(entry.paragraphs),
    }
    return {
        "question_id": f"{entry.document_id}-{question.fact}",
        "question": question.text,
        "answer": list(dict.fromkeys(question.answers)),
        "contexts": gold_paragraphs(entry, question),
        "documents": [document],
        "metadata": {
            "topic": entry.topic,
            "answer_type": question.answer_type,
            "fact": question.fact,
        },
    }


def validate(entries: Sequence[Entry]) -> None:
    """Check what a slip in a facts table would break.

    Args:
        entries: All documents with their questions.

    Raises:
        ValueError: If a text has the wrong length, a question gives away its answer, or an id or
            a question occurs twice.
    """
    for entry in entries:
        words = len(" ".join(entry.paragraphs).split())
        if not 120 <= words <= 300:
            raise ValueError(f"{entry.document_id}: {words} words")
        for question in entry.questions:
            if any(mentions(question.text, answer) for answer in question.answers):
                raise ValueError(f"{entry.document_id}: {question.text!r} holds its answer")
    asked = [question for entry in entries for question in entry.questions]
    for what, values in (
        ("document id", [entry.document_id for entry in entries]),
        ("question", [question.text.lower() for question in asked]),
    ):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise ValueError(f"{what} not unique: {twice}")


def render(entries: Sequence[Entry]) -> str:
    """Return the dataset as JSON lines, the topics mixed so that any first N rows have them all."""
    rows = [question_row(entry, question) for entry in entries for question in entry.questions]
    rows.sort(key=lambda row: draw(f"order|{row['question_id']}", 1 << 60))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the dataset, or check that the shipped file is up to date.

    Args:
        argv: Command-line arguments; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Write the demo dataset from its facts tables.")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="file to write")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 if the file differs"
    )
    arguments = parser.parse_args(argv)
    entries = build_entries()
    validate(entries)
    content = render(entries).encode("utf-8")
    if arguments.check:
        same = arguments.output.is_file() and arguments.output.read_bytes() == content
        print(f"{arguments.output}: {'up to date' if same else 'differs from the facts tables'}")
        return 0 if same else 1
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_bytes(content)
    count = sum(len(entry.questions) for entry in entries)
    print(f"{arguments.output}: {count} questions over {len(entries)} documents")
    return 0


if __name__ == "__main__":
    sys.exit(main())
