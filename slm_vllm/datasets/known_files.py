"""The dataset files that teams keep in their bucket, under their usual names."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("nq", "simple_qa")


@dataclass(frozen=True, slots=True)
class KnownFile:
    """One file of a dataset.

    Attributes:
        name: Its name, here and in the bucket.
        kind: "nq" or "simple_qa".
        raw: As it was published, before conversion.
        required: Part of every complete bucket; Parquet is missing where it was filled before
            this project wrote it.
    """

    name: str
    kind: str
    raw: bool = False
    required: bool = True


KNOWN_FILES = (
    KnownFile("NQ-open.dev.merged.jsonl", "nq", raw=True),
    KnownFile("nq_full_dataset.json", "nq"),
    KnownFile("nq_converted_train.json", "nq"),
    KnownFile("nq_converted_eval.json", "nq"),
    KnownFile("nq_full_dataset.parquet", "nq", required=False),
    KnownFile("simple_qa_test_set_with_documents.csv", "simple_qa", raw=True),
    KnownFile("simple_qa_converted.json", "simple_qa"),
    KnownFile("simple_qa_train.json", "simple_qa"),
    KnownFile("simple_qa_eval.json", "simple_qa"),
    KnownFile("simple_qa_converted.parquet", "simple_qa", required=False),
)

WHOLE_DATASET = {
    "nq": ("nq_full_dataset.parquet", "nq_full_dataset.json", "NQ-open.dev.merged.jsonl"),
    "simple_qa": (
        "simple_qa_converted.parquet",
        "simple_qa_converted.json",
        "simple_qa_test_set_with_documents.csv",
    ),
}
"""The files that hold the same rows, all of them; the fastest to read first, the raw one last."""


def known_files(which: str, *, raw: bool, processed: bool) -> list[KnownFile]:
    """The files of "nq", "simple_qa" or "both"."""
    kinds = KINDS if which == "both" else (which,)
    return [file for file in KNOWN_FILES if file.kind in kinds and (raw if file.raw else processed)]


def raw_file(kind: str) -> KnownFile:
    """The file that the others of a kind are converted from."""
    return next(file for file in KNOWN_FILES if file.kind == kind and file.raw)
