"""Documents and questions: rivers."""

from __future__ import annotations

from collections.abc import Sequence

from demo_dataset.entry import Entry, Question, Row, choose, neighbours_in, own_question, parts
from demo_dataset.wording import draw, join_names, paragraph, pick, shuffled, slug


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
