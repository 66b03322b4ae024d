"""Which class serves which `retriever.kind`.

A package of its own can add one with an entry point in the group `slm_vllm.retrievers`, whose name
is the kind and whose value is a class derived from `StoredRetriever` or `CompositeRetriever`.
"""

from __future__ import annotations

from slm_vllm.config.schema import RetrieverConfig
from slm_vllm.plugins import Registry
from slm_vllm.retrieval.base import BaseRetriever, CompositeRetriever, StoredRetriever
from slm_vllm.retrieval.options import parse_options

ENTRY_POINT_GROUP = "slm_vllm.retrievers"

_RETRIEVERS = Registry(
    key="retriever.kind",
    noun="retriever",
    group=ENTRY_POINT_GROUP,
    base=BaseRetriever,  # type: ignore[type-abstract]
    built_in={
        "bm25": "slm_vllm.retrieval.bm25:BM25Retriever",
        "rank_bm25": "slm_vllm.retrieval.rank_bm25:RankBM25Retriever",
        "dense": "slm_vllm.retrieval.dense:DenseRetriever",
        "trec_run": "slm_vllm.retrieval.trec_run:TrecRunRetriever",
        "hybrid": "slm_vllm.retrieval.hybrid:HybridRetriever",
    },
    one_of=(StoredRetriever, CompositeRetriever),
    attributes=("kind",),
)

retriever_kinds = _RETRIEVERS.names
retriever_class = _RETRIEVERS.find


def validate_options(config: RetrieverConfig) -> None:
    """Checks a retriever's kind and options without importing anything heavy.

    Raises:
        ConfigError: Names the key and the nearest valid one.
    """
    found = retriever_class(config.kind)
    options = parse_options(config.kind, found.options_class, config.options)
    if issubclass(found, CompositeRetriever):
        for part in found.components(config, options):
            validate_options(part)
