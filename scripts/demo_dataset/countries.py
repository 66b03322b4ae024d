"""Documents and questions: countries."""

from __future__ import annotations

from collections.abc import Sequence

from demo_dataset.entry import Entry, Question, Row, choose, neighbours_in, own_question, parts
from demo_dataset.wording import draw, join_names, mentions, paragraph, pick, shuffled, slug


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
