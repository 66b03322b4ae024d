"""Documents and questions: composers, painters, scientists and writers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from demo_dataset.entry import Entry, Question, Row, choose, neighbours_in, own_question, parts
from demo_dataset.wording import (
    article,
    count_of,
    join_names,
    mentions,
    paragraph,
    pick,
    sentence_case,
    slug,
)

# Sources give these years with "about" or differ by the calendar used, so nothing asks for them.
UNCERTAIN_YEARS = {"Dante Alighieri", "Isaac Newton"}


# Modern names of states that did not exist under them when most of these people were born.
LATER_STATES = {"Germany", "Italy", "Poland", "the Czech Republic"}


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
