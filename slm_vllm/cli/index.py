"""`slm-vllm index`: builds, inspects, searches and evaluates retrieval indexes."""

from __future__ import annotations

import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from slm_vllm.amounts import counted, format_size
from slm_vllm.cli.options import CONFIG_DIR, JSON, OVERRIDES, cache_dir_option, echo_json, together
from slm_vllm.cli.paths import UserPath
from slm_vllm.cli.s3_options import (
    CONNECTION_OPTIONS,
    DRY_RUN_OPTION,
    FORCE_OPTION,
    PREFIX_OPTION,
    reported_transfers,
)

if TYPE_CHECKING:
    from slm_vllm.config.schema import Config
    from slm_vllm.retrieval.base import BaseRetriever
    from slm_vllm.retrieval.build_progress import BuildProgress

_STORE = cache_dir_option("Where indexes are kept.")


# What all commands take that open an index.
_SEARCHED = together(
    click.option("--dataset", help="A configured dataset, or a file."),
    click.option(
        "--retriever", help="bm25, dense, hybrid, your own configuration, or a TREC run file."
    ),
    click.option("--corpus", help="A collection to search instead of the dataset's documents."),
    click.option("--top-k", type=click.IntRange(min=1), help="Passages for each question."),
    click.option("--cache-dir", type=UserPath(), help="Where indexes are kept."),
    CONFIG_DIR,
    JSON,
    OVERRIDES,
)


@click.group("index")
def index() -> None:
    """Build, inspect, search and evaluate the index of a retriever.

    \b
    Example:
      slm-vllm index search "who wrote the first declaration of human rights" --dataset nq
    """


@index.command("build")
@_SEARCHED
def build(as_json: bool, **given: Any) -> None:
    """Build the index unless it exists.

    \b
    Examples:
      slm-vllm index build --dataset nq --retriever hybrid
      slm-vllm index build --dataset data/NQ-open.dev.merged.jsonl retriever.passage.size=200
    """
    config = _compose(given)
    begin = time.perf_counter()
    retriever = _open(config)
    facts = {**retriever.describe(), "seconds": round(time.perf_counter() - begin, 3)}
    retriever.close()
    _print(facts, as_json)


@index.command("info")
@_STORE
@JSON
def info(cache_dir: Path, as_json: bool) -> None:
    """List the stored indexes, and whether they are intact.

    \b
    Example:
      slm-vllm index info --cache-dir .cache
    """
    from slm_vllm.retrieval.index_store import stored_indexes

    found = stored_indexes(cache_dir)
    if as_json:
        echo_json({"indexes": found})
        return
    if not found:
        click.echo(f"No index in {cache_dir}. Build one with: slm-vllm index build --dataset NAME")
    for entry in found:
        if "damaged" in entry:
            click.echo(f"{entry['name']:<28} damaged, is rebuilt when used: {entry['damaged']}")
        else:
            size = format_size(entry["bytes"])
            click.echo(f"{entry['name']:<28} {entry['n_passages']:>9,} passages {size:>12}")


@index.command("search")
@click.argument("question")
@_SEARCHED
def search(question: str, as_json: bool, **given: Any) -> None:
    """Print the best passages for a question, with their scores.

    \b
    Example:
      slm-vllm index search "Which element has the atomic number 47?" --dataset demo --top-k 5
    """
    config = _compose(given)
    _refuse_stages(config)
    retriever = _open(config)
    found = retriever.retrieve([question], config.retriever.top_k, config.retriever.min_score)[0]
    retriever.close()
    if as_json:
        passages = [passage.to_json() for passage in found]
        echo_json({"question": question, "passages": passages})
        return
    if not found:
        click.echo("No passage was found: no word of the question is in the documents.")
    for item in found:
        click.echo(f"{item.rank}. {item.score:.4f}  {item.passage.title}")
        click.echo(f"   {item.passage.passage_id}")
        click.echo(f"   {item.passage.text}\n")


@index.command("eval")
@click.option("--write-run", type=UserPath(), help="Write the results as a TREC run file.")
@_SEARCHED
def evaluate(write_run: str | None, as_json: bool, **given: Any) -> None:
    """Measure how well a retriever finds answers and documents.

    No language model is needed. Searches for the 10 best passages of each question, or more with
    a larger --top-k.

    \b
    Examples:
      slm-vllm index eval --dataset nq --retriever dense --json
      slm-vllm index eval --dataset nq --retriever bm25 --top-k 100 --write-run bm25.trec
      slm-vllm index eval --dataset nq --retriever theirs.trec
    """
    from slm_vllm.datasets.registry import open_configured
    from slm_vllm.retrieval.evaluation import measure_search
    from slm_vllm.retrieval.qrels import find_qrels
    from slm_vllm.retrieval.trec_run import written_run
    from slm_vllm.runs.contexts import search_depth

    config = _compose(given)
    _refuse_stages(config)
    retriever = _open(config)
    dataset = open_configured(config.dataset, _file(config))
    qrels = find_qrels(dataset, config.corpus, config.cache_dir)
    rows = dataset.scan(with_documents=qrels.needs_documents)
    depth, min_score = search_depth(config), config.retriever.min_score
    with written_run(write_run, config.retriever.name) if write_run else nullcontext() as to:
        figures = measure_search(retriever, rows, depth, min_score, qrels, to)
    result = {**retriever.describe(), "dataset": config.dataset.name, **figures}
    retriever.close()
    if as_json:
        echo_json(result)
        return
    timing = f"{result['search_seconds']:.2f} s, {result['questions_per_second']:,.0f}/s"
    asked = counted(result["questions"], "question")
    click.echo(f"{asked}, {counted(result['n_passages'], 'passage')}, {timing}")
    for name, value in result["metrics"].items():
        if value["mean"] is not None:
            click.echo(f"  {name:<22} {value['mean']:>7.4f}  n={value['n']:,}")


@index.command("push")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@_STORE
@PREFIX_OPTION
@FORCE_OPTION
@DRY_RUN_OPTION
@CONNECTION_OPTIONS
def push(names: tuple[str, ...], cache_dir: Path, as_json: bool, **given: Any) -> None:
    """Upload stored indexes with the passages they search.

    All of them when none is named. NAME is a name of `index info`, which ends in the index's
    fingerprint. An index that the bucket has already is skipped.

    \b
    Example:
      slm-vllm index push
    """
    from slm_vllm.errors import ConfigError
    from slm_vllm.retrieval.index_store import stored_indexes
    from slm_vllm.retrieval.index_sync import push_index

    stored = [entry["name"] for entry in stored_indexes(cache_dir) if "damaged" not in entry]
    pushed = names or [name for name in stored if not name.startswith("passages-")]
    if not pushed:
        raise ConfigError(f"{cache_dir} holds no index to push; `slm-vllm index build` makes one")
    with reported_transfers(given, as_json) as (transfers, _):
        for name in pushed:
            push_index(transfers, cache_dir, name)


@index.command("pull")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@_STORE
@PREFIX_OPTION
@DRY_RUN_OPTION
@CONNECTION_OPTIONS
def pull(names: tuple[str, ...], cache_dir: Path, as_json: bool, **given: Any) -> None:
    """Download indexes that were pushed.

    Runs with the same documents and settings find them.

    \b
    Examples:
      slm-vllm s3 ls indexes/
      slm-vllm index pull bm25-0123456789abcdef
    """
    from slm_vllm.retrieval.index_sync import pull_index

    with reported_transfers({**given, "force": False}, as_json) as (transfers, _):
        for name in names:
            pull_index(transfers, cache_dir, name)


def _compose(given: dict[str, Any]) -> Config:
    from slm_vllm.config.compose import compose_config
    from slm_vllm.config.run_words import run_words
    from slm_vllm.retrieval.registry import validate_options

    folder = given["config_dir"]
    (words,) = run_words(given, [], overrides=given["overrides"], config_dir=folder)
    config = compose_config(words, folder)
    validate_options(config.retriever)
    return config


def _refuse_stages(config: Config) -> None:
    """Raises ConfigError where a language model takes part in the search."""
    from slm_vllm.errors import ConfigError

    if config.retriever.asks_model:
        raise ConfigError(
            f"retriever={config.retriever.name} asks the model that is evaluated, and no model is "
            "loaded here. `slm-vllm eval --mode retriever` measures the search with it and without"
        )


def _open(config: Config) -> BaseRetriever:
    from slm_vllm.retrieval.corpus import find_corpus
    from slm_vllm.retrieval.index_store import open_index

    corpus = find_corpus(config, _file(config))
    retriever = open_index(
        config.retriever,
        corpus.documents,
        corpus_key=corpus.key,
        cache_dir=Path(config.cache_dir),
        progress=_progress(),
    )
    for notice in corpus.notices:
        click.echo(notice, err=True)
    return retriever


def _file(config: Config) -> str:
    """The local copy of the dataset, where its path is a URL."""
    from slm_vllm.datasets.registry import fetched_path

    return fetched_path(config.dataset.path, config.cache_dir, kind=config.dataset.kind)


def _progress() -> BuildProgress:
    """One line of a terminal, elsewhere a line twice a minute."""
    from slm_vllm.retrieval.build_progress import BuildProgress

    if sys.stderr.isatty():
        return BuildProgress(
            lambda line, is_last: click.echo(f"\r{line:<76}", err=True, nl=is_last), every=0.0
        )
    return BuildProgress(lambda line, _: click.echo(line, err=True))


def _print(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        echo_json(facts)
        return
    for name, value in facts.items():
        click.echo(f"{name:<12} {value}")
