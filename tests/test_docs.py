"""The documentation against the product: commands, settings, links, files that pages name."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from slm_vllm.cli import main as entry
from slm_vllm.config.compose import compose_config
from slm_vllm.rundir import names
from support.places import REPOSITORY

PAGES = sorted(
    [
        *REPOSITORY.glob("README*.md"),
        REPOSITORY / "CONTRIBUTING.md",
        REPOSITORY / "SECURITY.md",
        *(REPOSITORY / "benchmarks").rglob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
    ]
)
RUSSIAN = [page for page in PAGES if page.name.endswith(".ru.md") or page.parent.name == "ru"]
ENGLISH = [page for page in PAGES if page not in RUSSIAN]
FOLDERS = {"scripts", "configs", "docs", "benchmarks", "requirements", "tests", "slm_vllm"}
ENTRY_POINTS = {
    f"slm_vllm.{kind}"
    for kind in ("datasets", "retrievers", "metrics", "engines", "trackers", "contexts")
}
READMES = ("README.md", "README.ru.md")
# In README.md and quick; they are really run.
RUN = ["config list", "config show", "config validate", "data check", "index eval", "index search"]

pages = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix()
)


def code_lines(text: str) -> Iterator[str]:
    """Lines of fenced and indented code, continued ones joined."""
    fenced, line = False, ""
    for raw in text.splitlines():
        if raw.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if not fenced and not raw.startswith("    "):
            continue
        line += raw.strip()
        if line.endswith("\\"):
            line = line[:-1]
            continue
        yield line
        line = ""


def spans(text: str) -> list[str]:
    """Inline code outside of code blocks, broken lines joined."""
    prose = re.sub(r"^```.*?^```|^    .*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    paragraphs = re.split(r"\n\s*\n", prose)
    found = [span for paragraph in paragraphs for span in re.findall(r"`([^`]+)`", paragraph)]
    return [" ".join(span.split()) for span in found]


def slm_words(line: str) -> Iterator[list[str]]:
    """The words behind each `slm-vllm` of a line, as the shell would give them."""
    if "slm-vllm" not in line and "nohup_eval.sh" not in line:
        return
    words = shlex.split(line.removeprefix("$ "), comments=True)
    for place, word in enumerate(words):
        if word.startswith("slm-vllm "):  # handed to tmux as one word
            yield from slm_words(word)
        elif word == "slm-vllm" or word.endswith(("/slm-vllm", "/nohup_eval.sh")):
            taken = ["eval"] if word.endswith(".sh") else []
            for argument in words[place + 1 :]:
                if argument in {"|", ">", "<", "&", "&&", ";"} or argument.startswith("2>"):
                    break
                taken.append(argument)
            yield taken


def commands(text: str) -> list[list[str]]:
    """Commands in the code of a page, as words."""
    return [words for line in code_lines(text) for words in slm_words(line)]


def mentions(text: str) -> list[list[str]]:
    """Commands named in its sentences, where `[RUN...]` means a word."""
    found = (span.translate({ord("["): None, ord("]"): None}) for span in spans(text))
    return [words for span in found if span.startswith("slm-vllm ") for words in slm_words(span)]


def walk(command: click.Command) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from walk(inner)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replaces what commands do by a note of what they were given."""
    given: list[dict[str, Any]] = []
    for command in walk(entry.cli):
        monkeypatch.setattr(command, "callback", lambda **values: given.append(values))
    return given


def overrides_of(values: dict[str, Any]) -> list[str]:
    words = [word for word in values.get("overrides") or () if word != "KEY=VALUE"]
    if values.get("engine"):
        words.append(f"engine.name={values['engine']}")
    return words


@pages
def test_every_command_is_one_the_program_takes(
    page: Path, parsed: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = []
    text = page.read_text(encoding="utf-8")
    for words in commands(text) + mentions(text):
        try:
            entry.cli.main(words, prog_name="slm-vllm", standalone_mode=False)
        except click.exceptions.NoArgsIsHelpError:
            continue  # a group by itself
        except click.MissingParameter as error:
            if words in commands(text):
                wrong.append(f"{shlex.join(words)}: {error.format_message()}")
        except click.ClickException as error:
            wrong.append(f"{shlex.join(words)}: {error.format_message()}")
    assert not wrong, "\n".join(wrong)


def test_examples_in_help_are_commands(parsed: list[dict[str, Any]]) -> None:
    example = re.compile(r"^(?:Example:)? *(slm-vllm .*(?:\\\n.*)*)$", re.MULTILINE)
    for command in walk(entry.cli):
        for found in example.findall(f"{command.help}\n{command.epilog}"):
            for words in commands("    " + found.replace("\n", "\n    ")):
                entry.cli.main(words, prog_name="slm-vllm", standalone_mode=False)
    assert len(parsed) > 30


@pages
def test_every_override_of_a_command_is_a_setting(page: Path, parsed: list[dict[str, Any]]) -> None:
    text = page.read_text(encoding="utf-8")
    for words in commands(text) + mentions(text):
        if words[:1] in (["eval"], ["sweep"]) or words[:2] == ["config", "show"]:
            entry.cli.main(words, prog_name="slm-vllm", standalone_mode=False)
    for values in parsed:
        if "overrides" in values and not values.get("config_dir"):
            compose_config(overrides_of(values))


@pages
def test_every_option_in_the_text_exists(page: Path) -> None:
    known = {
        name for command in walk(entry.cli) for option in command.params for name in option.opts
    }
    known |= {"--help", "--version"}
    scripts = [*(REPOSITORY / "scripts").iterdir(), *(REPOSITORY / "benchmarks").glob("*.py")]
    known.update(
        name
        for script in scripts
        if script.is_file()
        for name in re.findall(r"--[a-z][a-z-]+", script.read_text(encoding="utf-8"))
    )
    named = {
        option
        for span in spans(page.read_text(encoding="utf-8"))
        if span.startswith("--")
        for option in re.findall(r"(?:^| )(--[a-z][a-z-]+)", span)
    }
    assert named <= known


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        aim = (page.parent / name).resolve() if name else page
        if not aim.exists() or (anchor and anchor not in anchors(aim)):
            broken.append(target)
    assert not broken


@pages
def test_files_that_are_named_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = []
    for name in re.findall(r"(?<![\w./:-])[a-z]\w*/[\w./*{},-]*\w/?", text):
        # What a page calls by its place in the package is a module; other folders are the user's.
        home = REPOSITORY / "slm_vllm" if name.endswith(".py") and is_package(name) else REPOSITORY
        if home == REPOSITORY and name.split("/")[0] not in FOLDERS:
            continue
        if "NAME" not in name and not name.startswith("benchmarks/results/gpu"):
            missing += [one for one in alternatives(name) if not list(home.glob(one))]
    for name in re.findall(r"\bslm_vllm(?:\.[a-z_]+)+", text):
        if name not in ENTRY_POINTS and not is_importable(name):
            missing.append(name)
    assert not missing


def is_importable(name: str) -> bool:
    """Whether a package, a module, or a function of a module is called so."""
    path = REPOSITORY.joinpath(*name.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    module = path.parent.with_suffix(".py")
    return module.is_file() and f"\ndef {path.name}(" in module.read_text(encoding="utf-8")


def is_package(name: str) -> bool:
    return (REPOSITORY / "slm_vllm" / name.split("/")[0]).is_dir()


def alternatives(pattern: str) -> list[str]:
    """`a/{b,c}.py` as two patterns."""
    match = re.search(r"\{([^}]*)\}", pattern)
    if match is None:
        return [pattern]
    return [pattern.replace(match[0], word) for word in match[1].split(",")]


def test_russian_pages_give_the_commands_of_the_english_ones() -> None:
    english = [page.read_text(encoding="utf-8") for page in ENGLISH]
    known = [words for text in english for words in commands(text) + mentions(text)]
    assert len(RUSSIAN) > 5
    for page in RUSSIAN:
        for words in commands(page.read_text(encoding="utf-8")):
            assert words in known, page.name


def test_both_readmes_show_the_same_blocks_of_commands() -> None:
    english, russian = ((REPOSITORY / name).read_text(encoding="utf-8") for name in READMES)
    assert commands(russian) == commands(english)


def test_the_pages_name_the_files_of_a_run_and_the_packages() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    table = text.split("## What a run leaves")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert named == set(names.WRITTEN) - {names.TRACKING}
    packages = {path.parent.name for path in (REPOSITORY / "slm_vllm").glob("*/__init__.py")}
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = page.split("## Where things are")[1].split("\n## ")[0]
    assert set(re.findall(r"slm_vllm/(\w+)", listed)) == packages


@pytest.mark.slow
def test_quick_commands_of_the_readme_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "questions.jsonl").write_text('{"question": "Who?", "answer": "Ann"}\n')
    (tmp_path / "quiz.csv").write_text("Query text;Gold\nWho?;Ann\n")
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "Silver is the element 47."}\n')
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    quick = [words for words in commands(text) if " ".join(words[:2]) in RUN]
    assert {" ".join(words[:2]) for words in quick} == set(RUN)
    for words in quick:
        monkeypatch.setattr(sys, "argv", ["slm-vllm", *words])
        with pytest.raises(SystemExit) as stop:
            entry.main()
        assert not stop.value.code, (words, capsys.readouterr().err)
        assert capsys.readouterr().out
