"""Finds the columns that hold the fields of a row: by public names, or as mapped."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from slm_vllm.datasets.rows.values import ValueProblem, mapping_of
from slm_vllm.errors import ConfigError, DataError
from slm_vllm.nearest import close_names, nearest

FIELDS = ("question_id", "question", "answers", "contexts", "documents", "metadata")
"""What `dataset.options.columns` may map."""

# Column names that mean a field, as `_folded` spells them; of several the first that holds a value.
# After a dot: within an object, or the objects of a list. TriviaQA, NQ-open, SimpleQA, HotpotQA and
# many others need no entry of their own.
_NAMES: dict[str, tuple[str, ...]] = {
    "question_id": (
        "questionid",
        "id",  # also `_id`: HotpotQA, BEIR
        "qid",
        "queryid",  # MS MARCO
        "exampleid",
    ),
    "question": (
        "question",
        "query",
        "problem",  # SimpleQA
        "qtext",  # WebQuestions (brmson)
        "utterance",  # WebQuestions
        "questiontext",
        "questionstem",  # OpenBookQA
        "input",  # KILT
    ),
    "answers": (
        "groundtruth",  # RAGAS, whose `answer` is the generated one
        "groundtruths",
        "answer",
        "answers",
        "answersspans",  # DROP on the Hugging Face hub
        "answerkey",  # ARC, CommonsenseQA, OpenBookQA
        "goldenanswers",  # FlashRAG
        "goldanswers",
        "possibleanswers",  # PopQA
        "targetvalue",  # WebQuestions
        "output.answer",  # KILT
        "annotations.answer",  # AmbigQA
        "annotations.short_answers",  # Natural Questions on the Hugging Face hub
    ),
    "more_answers": ("answeraliases",),  # MuSiQue
    "choices": ("choices", "options"),  # MMLU and others, whose answer is a number or a letter
    "contexts": ("contexts", "context", "metadata.context", "passage"),  # the last: BoolQ, DROP
    "gold": ("positivectxs", "positivepassages"),  # DPR, Tevatron
    "documents": (
        "documents",
        "ctxs",  # FiD, DPR's retriever
        "passages",  # MS MARCO
        "paragraphs",  # MuSiQue
        "negativectxs",
        "hardnegativectxs",
        "negativepassages",
        "entitypages",  # TriviaQA
        "searchresults",
    ),
    "facts": ("supportingfacts", "metadata.supporting_facts"),  # HotpotQA, 2WikiMultiHopQA
    "page": ("title",),
    "metadata": ("metadata",),
}
# Names too common to mean a field by themselves, with what must stand beside them.
_ONLY_WITH = {
    "input": "output",
    "output.answer": "input",
    "utterance": "targetvalue",
    "metadata.context": "goldenanswers",  # FlashRAG's HotpotQA
    "metadata.supporting_facts": "goldenanswers",
    "answerkey": "choices",
}
# Where one of these holds the gold answer, `answer` is that of a model.
_TRUTHS = ("groundtruth", "groundtruths")
_UNFOLDED = frozenset(("paragraphs", "qas", "qapairs", "rowidx"))  # see `nested`
_NO_HEADER = ". If the first line is a row already, put one with the names of the columns before it"
_OPTION = "dataset.options.columns."
_NUMBERED = re.compile(r"answers?\d+")
_ANSWER_LIKE = re.compile(r"answer|repl|respon|target|gold|label|solution|output|truth|expect")


@dataclass(frozen=True, slots=True)
class FoundFields:
    """Where the fields of rows with certain columns are.

    Attributes:
        paths: By field, the ways to it; each is a column and the keys below it.
        others: The columns that hold no field.
    """

    paths: Mapping[str, tuple[tuple[str, ...], ...]]
    others: tuple[str, ...]

    def has(self, *fields: str) -> bool:
        """Whether any column holds one of the fields."""
        return any(self.paths[field] for field in fields)

    def value(self, row: Mapping[str, Any], field: str) -> Any:
        """The first value of a field that is not missing, or None."""
        for column, *keys in self.paths[field]:
            found = _below(row[column], keys) if keys else row[column]
            if found is not None:
                return found
        return None

    def values(self, row: Mapping[str, Any], field: str) -> list[tuple[str, Any]]:
        """Every value of a field that is not missing, with the name of its column."""
        ways = self.paths[field]
        if not ways:
            return []
        found = [
            (column, _below(row[column], keys) if keys else row[column]) for column, *keys in ways
        ]
        return [(column, value) for column, value in found if value is not None]

    def metadata(self, row: Mapping[str, Any], kept: Sequence[str] | None) -> dict[str, Any]:
        """What is kept of a row beside its fields: what `kept` names, else all that is left."""
        if kept is not None:
            return {name: reach(row, name) for name in kept}
        others = {key: row[key] for key in self.others}
        if not self.has("metadata"):
            return others
        value = self.value(row, "metadata")
        try:
            return mapping_of(value, "metadata") | others
        except ValueProblem:
            return {"metadata": value} | others

    @property
    def columns(self) -> frozenset[str]:
        """The columns that hold fields."""
        return frozenset(path[0] for paths in self.paths.values() for path in paths)


class FieldNames:
    """Finds the fields of rows by the names of their columns.

    Args:
        columns: The user's mapping, {"question": "query", "answers": "output.answer"}. A dot
            reaches into an object, or into the objects of a list. None says that a field is not
            there. "answers" takes several columns too, and "metadata" a list of those to keep,
            instead of all that are left.

    Raises:
        ConfigError: A field that there is not, or a column that is no name.
    """

    def __init__(self, columns: Mapping[str, Any] | None = None) -> None:
        self._mapped: dict[str, str | None] = {}
        self._more_answers: tuple[str, ...] = ()
        self.kept: tuple[str, ...] | None = None
        for field, column in (columns or {}).items():
            self._map(str(field), column)
        self._found: dict[tuple[str, ...], FoundFields] = {}

    def find(self, keys: Iterable[str]) -> FoundFields:
        """Finds the fields of rows with these columns."""
        keys = tuple(keys)
        found = self._found.get(keys)
        if found is None:
            if len(self._found) > 10_000:  # rows of ever other keys
                self._found.clear()
            found = self._found[keys] = self._find(keys)
        return found

    def is_row(self, value: Mapping[str, Any]) -> bool:
        """Whether an object is a row, or something that rows are unfolded from, by its keys."""
        return self.find(value).has("question") or any(_folded(key) in _UNFOLDED for key in value)

    def require(self, path: str, columns: tuple[str, ...], found_as: str) -> None:
        """Checks that the columns of a file hold questions, and answers where it seems to have any.

        Args:
            path: The file.
            columns: Its columns.
            found_as: Its form, for the message.

        Raises:
            DataError: A column is missing; the nearest names are given, and how to map them.
        """
        if not columns:
            return  # the first rows are damaged; the scan rejects each with its reason
        found = self.find(columns)
        missing = self._missing(found, columns)
        suspects = [name for name in found.others if _ANSWER_LIKE.search(_folded(name))]
        if [field for field, _ in missing] == ["answers"] and not suspects:
            missing = []  # questions alone: all rows are unscored
        for name in self.kept or ():
            if name not in columns and name.split(".")[0] not in columns:
                missing.append(("metadata", name))
        if missing:
            names = ", ".join(repr(name) for _, name in missing)
            raise DataError(
                f"{path} has no column {names}. Found: {found_as}. "
                + _advice(missing, found.others, suspects)
                + (_NO_HEADER if len(missing) > 1 and found_as.startswith("csv") else "")
            )

    def _missing(self, found: FoundFields, columns: tuple[str, ...]) -> list[tuple[str, str]]:
        """Fields that rows need and no column holds, each with the name that was looked for."""
        missing = [
            (field, column)
            for field, column in self._mapped.items()
            if column is not None and not found.has(field)
        ]
        if len(found.paths["more_answers"]) < len(self._more_answers):
            missing += [("answers", name) for name in self._more_answers if name not in columns]
        for field, name in (("question", "question"), ("answers", "answer")):
            if not found.has(field) and field not in self._mapped:
                missing.append((field, name))
        return missing

    def _map(self, field: str, column: Any) -> None:
        if field not in FIELDS:
            raise ConfigError(f"{_OPTION}{field}: there is no such field. {nearest(field, FIELDS)}")
        if field == "metadata":
            names = column if isinstance(column, (list, tuple)) else [column]
            self.kept = tuple(str(name) for name in names if name is not None)
        elif field == "answers" and isinstance(column, (list, tuple)) and column:
            self._mapped[field], *more = map(str, column)
            self._more_answers = tuple(more)
        elif column is None or isinstance(column, (str, int)):
            self._mapped[field] = None if column is None else str(column)
        else:
            raise ConfigError(f"{_OPTION}{field} must be the name of a column, not {column!r}")

    def _find(self, keys: tuple[str, ...]) -> FoundFields:
        folded: dict[str, str] = {}
        for key in keys:
            if _folded(key) not in folded or key == _folded(key):
                folded[_folded(key)] = key
        paths: dict[str, tuple[tuple[str, ...], ...]] = {}
        for field, names in _NAMES.items():
            if field in self._mapped:
                column = self._mapped[field]
                way = None if column is None else _way(column, keys, folded)
                paths[field] = (way,) if way else ()
            else:
                ways = (_known_way(name, folded) for name in names)
                paths[field] = tuple(way for way in ways if way)
        if "contexts" in self._mapped:
            paths["gold"] = paths["facts"] = ()
        if "answers" in self._mapped:
            more = (_way(column, keys, folded) for column in self._more_answers)
            paths["more_answers"] = tuple(way for way in more if way)
        elif truths := [way for way in paths["answers"] if _folded(way[0]) in _TRUTHS]:
            paths["answers"] = tuple(truths)
        mapped = {way[0] for field in self._mapped for way in paths[field]}
        for field in paths.keys() - self._mapped.keys():  # a column that is mapped has that meaning
            paths[field] = tuple(way for way in paths[field] if way[0] not in mapped)
        metadata = {way[0] for field in ("page", "facts", "choices") for way in paths[field]}
        used = {way[0] for ways in paths.values() for way in ways} - metadata
        return FoundFields(paths, tuple(key for key in keys if key not in used))


def _known_way(name: str, folded: Mapping[str, str]) -> tuple[str, ...] | None:
    column, *below = name.split(".")
    needed = _ONLY_WITH.get(name)
    if column not in folded or (needed is not None and needed not in folded):
        return None
    return (folded[column], *below)


def _way(column: str, keys: tuple[str, ...], folded: Mapping[str, str]) -> tuple[str, ...] | None:
    """The way to a mapped column; one of that very name comes before a dotted path."""
    if column in keys:
        return (column,)
    if _folded(column) in folded and "." not in column:
        return (folded[_folded(column)],)
    first, *below = column.split(".")
    if below and first in keys:
        return (first, *below)
    return None


def _folded(name: str) -> str:
    return re.sub(r"[\W_]+", "", str(name).casefold())


def parse_columns(words: Iterable[str]) -> dict[str, Any]:
    """Reads "question=query" as a mapping, also as an override of a run spells it.

    Raises:
        ConfigError: A word without an equals sign.
    """
    columns: dict[str, Any] = {}
    for word in words:
        field, equals, column = word.partition("=")
        if not equals or not column:
            raise ConfigError(f"{word}: expected FIELD=COLUMN, such as question=query")
        field = field.lstrip("+").removeprefix(_OPTION)
        if column[0] == column[-1] and column[0] in "'\"" and len(column) > 1:
            columns[field] = column[1:-1]
        elif column[0] == "[" and column[-1] == "]":
            columns[field] = [name.strip() for name in column[1:-1].split(",") if name.strip()]
        else:
            columns[field] = None if column == "null" else column
    return columns


def reach(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or of keys below one."""
    if name in row:
        return row[name]
    column, *keys = name.split(".")
    return _below(row.get(column), keys)


def _below(value: Any, keys: list[str]) -> Any:
    """Follows keys into objects, and into each object of a list; None where there is nothing."""
    for at, key in enumerate(keys):
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, (list, tuple)):
            found = [_below(item, keys[at:]) for item in value]
            flat: list[Any] = []
            for item in found:
                if isinstance(item, list):
                    flat += item
                elif item is not None:
                    flat.append(item)
            if all(isinstance(item, str) for item in flat):
                return list(dict.fromkeys(flat))  # KILT gives an answer again with its evidence
            return flat
        else:
            return None
    return value


def _advice(missing: list[tuple[str, str]], others: tuple[str, ...], suspects: list[str]) -> str:
    words, near = [], []
    for field, wanted in missing:
        close = suspects if field == "answers" and suspects else _near(wanted, others)
        near += [repr(name) for name in close[:1]]
        named = close[0] if close and close[0].isprintable() else "COLUMN"
        numbered = [name for name in close if _NUMBERED.fullmatch(_folded(name))]
        if field == "answers" and close[:1] == numbered[:1] and len(numbered) > 1:
            named = f"[{','.join(numbered)}]"
        words.append(shlex.quote(f"{_OPTION}{field}={named}"))
    hint = f"The nearest: {', '.join(near)}. " if near else ""
    none = " (null: it has none)" if ("answers", "answer") in missing else ""
    return f"{hint}Say which column holds what: {' '.join(words)}{none}"


def _near(wanted: str, others: tuple[str, ...]) -> list[str]:
    folded = {_folded(name): name for name in others}
    return [folded[name] for name in close_names(_folded(wanted), folded, 1)]
