"""The sections of the page: those that have something to say, and what is in the tables of runs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from slm_vllm.reporting.report import build_report
from slm_vllm.rundir.reading import load_run
from support.run_folders import make_run

SEARCH = {"answer_mrr": 0.5, "answer_hit@1": 0.0, "answer_hit@3": 1.0}


def html(folder: Path) -> str:
    return build_report([load_run(path) for path in sorted(folder.iterdir())]).html


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="([a-z]+)"', page)


def cells(page: str, tools: str) -> list[list[str]]:
    """The text of a table's lines."""
    (body,) = re.findall(rf'data-tools="{tools}".*?</table>', page)
    lines = re.findall(r"<tr>(.*?)</tr>", body)
    return [
        [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<t[dh].*?</t[dh]>", line)]
        for line in lines
    ]


def test_sections_without_content_are_left_out_with_their_links(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=[{"token_recall": 1.0}] * 4)
    alone = html(tmp_path)
    assert not {"differences", "harm", "retrieval"} & set(sections(alone))
    make_run(tmp_path / "b", mode="retriever", rows=[{"token_recall": 0.0, "search": SEARCH}] * 4)
    both = html(tmp_path)
    assert sections(both) == [
        "summary", "differences", "harm", "retrieval", "cost", "plots", "predictions",
        "configuration", "origin",
    ]  # fmt: skip
    for page in (alone, both):
        (links,) = re.findall(r"<nav aria-label=\"Sections\">(.*?)</nav>", page, re.DOTALL)
        assert re.findall(r'href="#([a-z]+)"', links) == sections(page)


def test_how_well_the_search_did(tmp_path: Path) -> None:
    make_run(tmp_path / "a", mode="no_context", rows=[{}] * 4)
    searched = SEARCH | {"document_mrr": 0.25, "plain_answer_mrr": 0.125}
    make_run(tmp_path / "b", mode="retriever", rows=[{"search": searched}] * 4)
    page = html(tmp_path)
    head, *lines = cells(page, "search-answer")
    assert head == ["run", "mrr", "hit@1", "hit@3"]
    (line,) = lines
    assert [cell.split()[0] for cell in line] == ["b", "0.500", "0.000", "1.000"]
    assert cells(page, "search-document")[1][1].startswith("0.250")
    assert cells(page, "search-plain_answer")[1][1].startswith("0.125")


def test_rows_that_count_for_little_are_named_by_kind(tmp_path: Path) -> None:
    make_run(tmp_path / "a", rows=[{"error": "too long"}, {"truncated": True}, {}])
    make_run(tmp_path / "b", mode="oracle", rows=[{"error": "too long"}] * 2 + [{}])
    notes = re.findall(r'<ul class="notes">(.*?)</ul>', html(tmp_path))[-1]
    assert re.findall(r"<li>(.*?)</li>", notes) == [
        "failed requests: a 1, b 2",
        "prompts cut to fit the context: a 1",
    ]


def test_what_runs_cost(tmp_path: Path) -> None:
    rows = [{"n_prompt_tokens": 300, "n_completion_tokens": 20}] * 4
    make_run(tmp_path / "a", rows=rows, peak_rss=2048)
    make_run(tmp_path / "b", mode="oracle", rows=rows, peak_rss=1024, peak_gpu=3072)
    head, first, second = cells(html(tmp_path), "cost")
    assert head == [
        "run", "seconds", "load s", "generate s", "score s", "prompt tokens", "new tokens",
        "tokens a question", "new tokens/s", "peak GPU GiB", "peak host GiB",
    ]  # fmt: skip
    assert first == ["a", "60.1", "10.0", "50.0", "0.1", "1,200", "80", "320", "62.5", "-", "2.00"]
    assert second[-2:] == ["3.00", "1.00"]


def test_what_a_search_cost_the_model_has_a_column(tmp_path: Path) -> None:
    make_run(tmp_path / "a", rows=[{}] * 4)
    path = make_run(tmp_path / "b", mode="retriever", rows=[{}] * 4) / "results.json"
    stages = {
        "expand": {"prompt_tokens": 900, "completion_tokens": 100},
        "rerank": {"prompt_tokens": 5000, "completion_tokens": 40},
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | {"stages": stages}))
    head, *lines = cells(html(tmp_path), "cost")
    column = head.index("tokens before searches")
    assert {line[0]: line[column] for line in lines} == {"a": "-", "b": "6,040"}


def test_facts_and_settings_that_all_runs_share_are_said_once(tmp_path: Path) -> None:
    for number in range(9):
        make_run(tmp_path / f"run{number}", model=f"m{number}", rows=[{}])
    page = html(tmp_path)
    assert page.count("Some CPU") == 1
    # Nine runs and fewer settings: a line for each run.
    (differs,) = re.findall(r"<caption>What differs</caption><thead>(.*?)</thead>", page)
    assert re.findall(r"<th[^>]*>(.*?)</th>", differs) == [
        "run", "model.<wbr>name", "model.<wbr>path",
    ]  # fmt: skip


def test_a_long_name_may_be_broken_between_its_words(tmp_path: Path) -> None:
    make_run(tmp_path / "smollm2_nq", rows=[{}])
    make_run(tmp_path / "other_nq", mode="oracle", rows=[{}])
    assert '<th scope="row">smollm2_<wbr>nq</th>' in html(tmp_path)
