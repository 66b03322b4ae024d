"""Which class serves which `retriever.kind`.

A package of its own can add one with an entry point in the group `slm_vllm.retrievers`, whose name
is the kind and whose value is a class derived from `StoredRetriever` or `CompositeRetriever`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from slm_vllm.config.schema import RetrieverConfig
from slm_vllm.errors import ConfigError
from slm_vllm.nearest import nearest
from slm_vllm.retrieval.base import BaseRetriever
from slm_vllm.retrieval.options import parse_options

ENTRY_POINT_GROUP = "slm_vllm.retrievers"

_BUILT_IN = {
    "bm25": "slm_vllm.retrieval.bm25:BM25Retriever",
    "rank_bm25": "slm_vllm.retrieval.rank_bm25:RankBM25Retriever",
    "dense": "slm_vllm.retrieval.dense:DenseRetriever",
    "hybrid": "slm_vllm.retrieval.hybrid:HybridRetriever",
}


def retriever_kinds() -> list[str]:
    """All kinds there are, those of installed packages included."""
    added = [entry.name for entry in entry_points(group=ENTRY_POINT_GROUP)]
    return [*_BUILT_IN, *sorted(set(added) - set(_BUILT_IN))]


def retriever_class(kind: str) -> type[BaseRetriever]:
    """The class of a kind. Imports nothing heavy for the built-in ones.

    Raises:
        ConfigError: There is no such kind, or its entry point cannot be loaded.
    """
    if kind in _BUILT_IN:
        module, name = _BUILT_IN[kind].split(":")
        found = getattr(import_module(module), name)
        assert issubclass(found, BaseRetriever)
        return found
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if entry.name == kind:
            return _load(entry.load, kind, entry.value)
    raise ConfigError(f"retriever.kind: there is no '{kind}'. {nearest(kind, retriever_kinds())}")


def validate_options(config: RetrieverConfig) -> None:
    """Checks a retriever's kind and options without importing anything heavy.

    Raises:
        ConfigError: Names the key and the nearest valid one.
    """
    from slm_vllm.retrieval.base import CompositeRetriever

    found = retriever_class(config.kind)
    options = parse_options(config.kind, found.options_class, config.options)
    if issubclass(found, CompositeRetriever):
        for part in found.components(config, options):
            validate_options(part)


def _load(load: object, kind: str, value: str) -> type[BaseRetriever]:
    try:
        found = load()  # type: ignore[operator]
    except Exception as error:
        raise ConfigError(
            f"retriever.kind={kind}: the entry point {value} cannot be loaded: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, BaseRetriever)):
        raise ConfigError(f"retriever.kind={kind}: {value} is not a class of retrievers")
    return found
