"""Documents and questions: planets and their moons."""

from __future__ import annotations

from collections.abc import Sequence

from demo_dataset.entry import (
    Entry,
    Question,
    Row,
    best_paragraph,
    choose,
    neighbours_in,
    own_question,
    parts,
    plain_name,
)
from demo_dataset.wording import article, be, draw, join_names, paragraph, pick, slug

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


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
