"""Documents and questions: mountains."""

from __future__ import annotations

from collections.abc import Sequence

from demo_dataset.entry import Entry, Question, Row, choose, own_question, parts
from demo_dataset.wording import count_of, mentions, paragraph, pick, slug


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
