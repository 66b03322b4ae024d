"""Documents and questions: chemical elements."""

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
    plain_name,
    read_table,
)
from demo_dataset.wording import (
    article,
    count_of,
    join_names,
    number_spellings,
    paragraph,
    pick,
    shuffled,
    slug,
)

ELEMENT_SPELLINGS = {
    "aluminium": ["aluminium", "aluminum"],
    "sulfur": ["sulfur", "sulphur"],
    "tungsten": ["tungsten", "wolfram"],
    "mercury": ["mercury", "quicksilver"],
}


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
