"""The report in a real browser: what is found, filtered, compared and marked, and nothing run."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from click.testing import CliRunner

from slm_vllm.cli.report import command
from support.headless_chromium import Browser, chromium_path
from support.run_folders import make_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium_path() is None, reason="Debian's package chromium is not installed"
    ),
]

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=alert(1)>\x00\u202e"
LONG = "many words " * 100_000
PASSAGE = {
    "passage_id": "d1#0",
    "document_id": "d1",
    "title": "Silver",
    "text": "Silver, not SILVERWARE, has the number 47.",
    "score": 7.5,
    "rank": 1,
}


def rows(mode: str) -> list[dict[str, Any]]:
    """60 questions: closed book every second is right, with passages every third."""
    step = 2 if mode == "no_context" else 3
    made: list[dict[str, Any]] = [
        {"question": f"What is item {n}?", "token_recall": float(n % step == 0)} for n in range(60)
    ]
    made[1] |= {"token_recall": 0.5}
    made[3] |= {"prediction": HOSTILE}
    made[4] |= {"prediction": LONG}
    made[5] |= {"prediction": "", "error": "too long", "token_recall": 0.0}
    made[6] |= {"token_recall": None, "answers": []}
    made[7] |= {"answers": ["silver"]}
    if mode == "no_context":
        several = [("tin", 0.0), (HOSTILE, 0.33333), ("", None)]
        made[8] |= {"samples": [{"prediction": p, "token_recall": r} for p, r in several]}
    if mode == "retriever":
        for n, row in enumerate(made):
            row["search"] = {"answer_mrr": float(n < 20)}
            row["contexts"] = [PASSAGE] if n < 20 else []
        made[7] |= {"prediction": "It is Silver."}
    return made


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("report")
    for name, mode in (("closed", "no_context"), ("searched", "retriever")):
        make_run(folder / "grid" / name, mode=mode, rows=rows(mode))
    done = CliRunner().invoke(command, [str(folder / "grid")], standalone_mode=False)
    assert done.exception is None, done.output
    with Browser(folder / "profile") as opened:
        opened.size(1400, 900)
        opened.open((folder / "grid" / "report.html").as_uri())
        yield opened


@pytest.fixture(autouse=True)
def fresh(browser: Browser) -> None:
    """Waits for the page to have drawn the list again, which it does a moment after the reset.

    What a table is sorted by has no reset and stands in the address.
    """
    if browser.run("document.querySelector('[aria-sort]') !== null"):
        browser.open(browser.run("location.href").partition("#")[0].partition("?")[0])
    browser.run(
        "window.before = document.getElementById('list').firstChild;"
        "document.getElementById('filters').reset()"
    )
    browser.wait_for(
        "document.getElementById('list').firstChild !== window.before"
        " && document.getElementById('status').textContent === '120 predictions'"
    )


def choose(browser: Browser, name: str, value: str) -> str:
    """Sets one filter as a user does and returns the line that says how many are left."""
    event = "input" if name == "search" else "change"
    browser.run(
        f"(() => {{ const field = document.getElementById('{name}'); const before ="
        " document.getElementById('list').firstChild;"
        f"field.value = {value!r}; field.dispatchEvent(new Event('{event}', {{bubbles: true}}));"
        "window.before = before; })()"
    )
    # The list is made anew each time.
    browser.wait_for("document.getElementById('list').firstChild !== window.before")
    return str(browser.run("document.getElementById('status').textContent"))


def index_of(browser: Browser, name: str, run: str) -> str:
    """The value of the option that names a run."""
    return str(
        browser.run(
            f"[...document.getElementById('{name}').options]"
            f".find((option) => option.text.includes('{run}')).value"
        )
    )


def open_first(browser: Browser) -> None:
    browser.run("document.querySelector('#list details').open = true")
    browser.wait_for("document.querySelector('#list .sides') !== null")


def test_search_finds_all_words_in_any_order(browser: Browser) -> None:
    assert choose(browser, "search", "ITEM 37?") == "2 of 120 predictions"
    assert choose(browser, "search", "37 nowhere") == "0 of 120 predictions"
    # q5 failed in both runs, and its reason is searched as well.
    assert choose(browser, "search", "too LONG") == "2 of 120 predictions"


@pytest.mark.parametrize(
    ("name", "value", "n"),
    [
        ("mode", "retriever", "60"),
        # Even numbers but 6 in one run, multiples of three but 6 in the other.
        ("verdict", "right", "48 of 120"),
        ("verdict", "part", "2 of 120"),
        ("verdict", "error", "2 of 120"),
        ("verdict", "unscored", "2 of 120"),
        ("hit", "hit", "20 of 120"),
        ("hit", "miss", "40 of 120"),
    ],
)
def test_filters(browser: Browser, name: str, value: str, n: str) -> None:
    assert choose(browser, name, value) == f"{n} predictions"


def test_all_of_several_answers_are_there_folded(browser: Browser) -> None:
    # The words of any of them are found.
    assert choose(browser, "search", "item 8? tin") == "1 of 120 predictions"
    open_first(browser)
    shown = "document.querySelector('#list details.samples')"
    assert browser.run(f"{shown}.open") is False
    assert browser.run(f"{shown}.querySelector('summary').textContent") == "All 3 answers"
    texts = browser.run(f"[...{shown}.children].map((part) => part.textContent).join('|')")
    assert texts.startswith("All 3 answers|tin|Token recall 0|</script>")
    assert texts.endswith("|Token recall 0.333|(empty)|unscored")
    assert browser.run("document.title") != "taken"
    choose(browser, "search", "item 9?")
    open_first(browser)
    assert browser.run(f"{shown} === null")


def test_two_runs_side_by_side(browser: Browser) -> None:
    closed, searched = index_of(browser, "run", "closed"), index_of(browser, "other", "searched")
    assert browser.run("document.getElementById('change-label').hidden")
    choose(browser, "run", closed)
    assert choose(browser, "other", searched) == "60 questions that both runs have"
    assert not browser.run("document.getElementById('change-label').hidden")
    assert "none" not in browser.run(
        "getComputedStyle(document.getElementById('change-label')).display"
    )
    # Better with passages: odd multiples of three. q3, q9, ..., q57.
    assert choose(browser, "change", "better").startswith("10 of 60")
    open_first(browser)
    assert browser.run("document.querySelectorAll('#list details[open] .side').length") == 2


def test_pages(browser: Browser) -> None:
    assert browser.run("document.getElementById('list').children.length") == 50
    browser.run("document.getElementById('next').click()")
    browser.run("document.getElementById('next').click()")
    assert browser.run("document.getElementById('list').children.length") == 20
    assert browser.run("document.getElementById('next').disabled")


def test_the_answer_is_marked_in_prediction_and_passage(browser: Browser) -> None:
    choose(browser, "mode", "retriever")
    choose(browser, "search", "silver")
    open_first(browser)
    marks = browser.run("[...document.querySelectorAll('#list mark')].map((m) => m.textContent)")
    assert marks == ["Silver", "Silver", "Silver"]  # prediction, title and text of the passage
    assert browser.run("document.querySelectorAll('#list .passage.found').length") == 1
    assert "score 7.5" in browser.run("document.querySelector('#list .passage').textContent")


def test_what_a_model_wrote_is_text(browser: Browser) -> None:
    choose(browser, "search", "document.title")
    open_first(browser)
    shown = browser.run("document.querySelector('#list .side .text').textContent")
    assert shown.startswith("</script><script>document.title='taken'</script><img src=x")
    assert "\u2400" in shown  # a sign for the character that nobody sees
    assert browser.run("document.querySelectorAll('#list img, #list script').length") == 0
    assert browser.run("document.title") != "taken"


def test_a_long_prediction_is_cut_and_can_be_seen_whole(browser: Browser) -> None:
    choose(browser, "search", "many words")
    open_first(browser)
    length = "document.querySelector('#list .side .text').textContent.length"
    assert browser.run(length) < 4000
    browser.run("document.querySelector('#list .side .more').click()")
    assert browser.run(length) == len(LONG)


def cells(browser: Browser, tools: str, column: int) -> list[str]:
    """What a column of a table says, from its first line to its last."""
    return list(
        browser.run(
            f"[...document.querySelectorAll('[data-tools={tools}] tbody tr')]"
            f".map((row) => row.cells[{column}].textContent)"
        )
    )


def test_tables_are_sorted_by_their_heads(browser: Browser) -> None:
    head = "document.querySelectorAll('[data-tools=runs] th[scope=col]')[2]"
    assert browser.run(f"{head}.textContent") == "token recall"
    before = [float(cell.split()[0]) for cell in cells(browser, "runs", 2)]
    assert before == sorted(before, reverse=True) and before[0] != before[1]
    browser.run(f"{head}.querySelector('button').click()")
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "descending"
    browser.run(f"{head}.querySelector('button').click()")
    assert browser.run(f"{head}.getAttribute('aria-sort')") == "ascending"
    assert [float(cell.split()[0]) for cell in cells(browser, "runs", 2)] == before[::-1]


def test_the_address_holds_how_a_table_is_sorted(browser: Browser) -> None:
    """Beside what is chosen of the predictions, which alone is scrolled to."""
    browser.run("document.querySelectorAll('[data-tools=runs] th button')[2].click()")
    browser.run("document.querySelectorAll('[data-tools=runs] th button')[2].click()")
    order = cells(browser, "runs", 0)
    assert browser.run("location.hash") == "#sort.runs=token+recall"
    choose(browser, "verdict", "wrong")
    address = browser.run("location.href")
    assert address.endswith("#verdict=wrong&sort.runs=token+recall")
    page, _, chosen = address.partition("#")
    browser.open(page)
    assert cells(browser, "runs", 0) == order[::-1]
    browser.open(f"{page}?again#{chosen}")  # another fragment alone would load nothing
    assert cells(browser, "runs", 0) == order
    assert browser.run("document.getElementById('verdict').value") == "wrong"
    browser.open(f"{page}?again&again#sort.runs=-token+recall&sort.nothing=x&sort.cost=nobody")
    assert cells(browser, "runs", 0) == order[::-1]
    assert browser.run("scrollY") == 0


@pytest.mark.parametrize(("form", "separator"), [("CSV", ","), ("Markdown", " | ")])
def test_tables_can_be_taken_away(browser: Browser, form: str, separator: str) -> None:
    browser.run(
        "(() => { const link = HTMLAnchorElement.prototype, { click } = link;"
        "const make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { window.saved = blob; return 'blob:x'; };"
        "link.click = function () { window.savedAs = this.download; };"
        "document.querySelectorAll('#differences .tools button')"
        f"[{int(form == 'Markdown')}].click();"
        "link.click = click; URL.createObjectURL = make; })()"
    )
    text = browser.run("window.saved.text()")
    head, *lines = text.splitlines()
    assert head.strip("| ").split(separator)[:3] == ["run", "against", "difference"]
    assert lines[-1].strip("| ").startswith(separator.join(("searched", "closed", "")))
    assert browser.run("window.savedAs") == f"differences.{'csv' if form == 'CSV' else 'md'}"


def test_a_destroyed_answer_leads_to_its_row(browser: Browser) -> None:
    """Right closed book: even numbers but 6; of those every third is right with passages."""
    browser.run("document.querySelector('#harm-lists details').open = true")
    browser.wait_for("document.querySelector('#harm-lists li a') !== null")
    question = browser.run("document.querySelector('#harm-lists li a').textContent")
    assert question == "What is item 2?"
    browser.run("document.querySelector('#harm-lists li a').click()")
    browser.wait_for("document.querySelectorAll('#list details[open] .side').length === 2")
    assert browser.run("document.querySelectorAll('#list > li').length") == 1
    status = browser.run("document.getElementById('status').textContent")
    assert status == "1 question that both runs have"
    shown = browser.run("document.querySelector('#list summary').textContent")
    assert "What is item 2?" in shown
    assert browser.run("document.activeElement.closest('#list') !== null")


def test_destroyed_answers_are_a_filter(browser: Browser) -> None:
    assert choose(browser, "harm-cause", "any") == "20 of 120 predictions"


def test_the_address_holds_what_was_chosen(browser: Browser) -> None:
    choose(browser, "run", index_of(browser, "run", "closed"))
    choose(browser, "verdict", "wrong")
    address = browser.run("location.href")
    status = browser.run("document.getElementById('status').textContent")
    assert address.endswith("#run=closed&verdict=wrong")
    browser.run("document.getElementById('filters').reset()")
    browser.wait_for("location.hash === '#predictions'")
    browser.run("location.hash = 'run=closed&verdict=wrong'")
    browser.wait_for(f"document.getElementById('status').textContent === {status!r}")
    browser.run("location.hash = 'run=nobody&verdict=nothing&page=-7&row=x'")
    browser.wait_for("document.getElementById('status').textContent === '120 predictions'")


@pytest.mark.parametrize("dark", [False, True])
def test_axe_core_finds_nothing(browser: Browser, dark: bool) -> None:
    browser.size(1400, 900, dark=dark)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    browser.wait_for("document.querySelector('#list .sides') !== null")
    axe = files("axe_core_python") / "axe.min.js"
    browser.run(f"{axe.read_text('utf-8')}; undefined")
    found = browser.run(
        "axe.run(document, {resultTypes: ['violations']}).then((done) => done.violations"
        ".map((one) => `${one.impact} ${one.id}: ${one.nodes[0].html.slice(0, 200)}`))"
    )
    assert found == []


def test_the_keyboard_is_enough(browser: Browser) -> None:
    browser.run("document.querySelector('[data-tools=runs] th button').focus()")
    browser.key("Enter", 13, "\r")
    assert browser.run("document.activeElement.closest('th').getAttribute('aria-sort')")
    browser.run("document.querySelector('#list summary').focus()")
    browser.key("Enter", 13, "\r")
    browser.wait_for("document.querySelector('#list details[open] .sides') !== null")
    browser.run("document.querySelector('.skip').focus()")
    browser.key("Enter", 13, "\r")
    browser.wait_for("location.hash === '#predictions'")


def test_every_field_and_head_has_a_name(browser: Browser) -> None:
    assert browser.run("[...document.querySelectorAll('th')].every((head) => head.scope)")
    nameless = (
        "[...document.querySelectorAll('button, a, input, select, summary')].filter((one) =>"
        " !one.textContent.trim() && !one.getAttribute('aria-label') && !one.labels?.length).length"
    )
    assert browser.run(nameless) == 0
    assert browser.run(
        "new Set([...document.querySelectorAll('[id]')].map((one) => one.id)).size"
        " === document.querySelectorAll('[id]').length"
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_window(browser: Browser, width: int, dark: bool) -> None:
    browser.size(width, 900, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    colour = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    assert (sum(browser.run(colour)) < 380) is dark
    browser.size(1400, 900)


def test_the_page_asked_for_nothing_and_complained_of_nothing(browser: Browser) -> None:
    assert browser.console == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []
