"""Parses lists and objects stored as text: JSON, Python or NumPy notation, or without quotes."""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from typing import Any

MORE_THAN_TEXT = r"^\s*(?:[\[({]|[\w.]+\(|(?:NaN|nan|NaT|<NA>)\s*$)"
"""What may stand for a list, an object or a missing value, for `re` and for polars."""

_ENDS = {"[": "]", "(": ")", "{": "}"}
# What Python shows around a list, or around a value of it: array(['a']), np.str_('a').
_CALL = re.compile(
    r"(?:(?:np|numpy)\.\w+|array|list|tuple|set|frozenset|deque|dict_keys|dict_values|Index|Decimal)\("
)
_ADJACENT = re.compile(r"['\"]\s+[rubRUB]?['\"]|\)\s+\w+\(")
_NUMBERS = re.compile(r"(?:\s*[-+]?\d[\d.eE+-]*)+\s*")
_UNQUOTED = re.compile(
    r"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s,"'\[\]{}][^,"\[\]{}]*?))\s*(,|$)"""
)
_MISSING = {"nan", "NaN", "null", "none", "inf", "Infinity", "NA"}
_NOT_A_LITERAL = (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError)


class Digits(str):
    """A number of a literal, in the characters it was written with."""

    __slots__ = ()


def literal(text: str) -> Any:
    """Reads a list, tuple, set or object written into a text; None where the text is none.

    Numbers become `Digits`, missing values (null, None, nan) None.
    """
    text = text.strip()
    if not text or not (_ENDS.get(text[0]) == text[-1] or _CALL.match(text)):
        return None
    try:
        found = _parsed(text)
        if "\\" in text:  # an escape may stand for what is not Unicode
            json.dumps(found, ensure_ascii=False).encode()
        return found
    except _NOT_A_LITERAL:
        return None


def written_object(text: str) -> dict[str, Any] | None:
    """Reads an object written into a text, its numbers as numbers; None where the text is none."""
    for read in (json.loads, ast.literal_eval, literal):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd escapes
                found = read(text.strip())
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
        except (*_NOT_A_LITERAL, TypeError):
            continue
        if isinstance(found, dict):
            return found
    return None


def unquoted_list(text: str) -> list[str | None] | None:
    """Reads a list that is quoted only where it must be; None where the text is none.

    `[Danube, the Danube]` (DuckDB, Spark, Java), `{Danube,"the Danube"}` (PostgreSQL), and numbers
    as NumPy prints them, `[1 2]`.
    """
    text = text.strip()
    if not text or text[0] not in "[{" or _ENDS[text[0]] != text[-1]:
        return None
    inside = text[1:-1]
    if _NUMBERS.fullmatch(inside):
        return list(inside.split())
    items: list[str | None] = []
    at, more = 0, ","
    while more:
        found = _UNQUOTED.match(inside, at)
        if found is None:
            return None
        double, single, bare, more = found.groups()
        if bare is None:
            items.append(re.sub(r"\\(.)", r"\1", double if single is None else single))
        elif bare.count("(") != bare.count(")") or bare.startswith("..."):
            return None
        else:
            items.append(None if bare in ("NULL", "null") else bare)
        at = found.end()
    return items


def _parsed(text: str) -> Any:
    try:
        return json.loads(text, parse_int=Digits, parse_float=Digits, parse_constant=lambda _: None)
    except ValueError:
        pass
    # NumPy prints no commas between strings, which Python would join.
    source = _with_commas(text) if _ADJACENT.search(text) else text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd escapes
        return _value(ast.parse(source, mode="eval").body, source)


def _with_commas(text: str) -> str:
    parts: list[str] = []
    previous: tokenize.TokenInfo | None = None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER):
            continue
        if previous is not None and _ends_item(previous) and _begins_item(token):
            parts.append(",")
        parts.append(token.string)
        previous = token
    return " ".join(parts)


def _ends_item(token: tokenize.TokenInfo) -> bool:
    return token.type == tokenize.STRING or token.string in ("]", ")")


def _begins_item(token: tokenize.TokenInfo) -> bool:
    return token.type in (tokenize.STRING, tokenize.NAME) or token.string == "["


def _value(node: ast.expr, source: str) -> Any:
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return [_value(item, source) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_value(key, source) if key is not None else None for key in node.keys]
        if not all(isinstance(key, str) for key in keys):
            raise ValueError("a key that is no text")
        values = [_value(value, source) for value in node.values]
        return dict(zip(keys, values, strict=True))
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes, bool, type(None))):
        return node.value.decode() if isinstance(node.value, bytes) else node.value
    if isinstance(node, (ast.Constant, ast.UnaryOp)):
        number = ast.literal_eval(node)
        if isinstance(number, (int, float)):
            return Digits(ast.get_source_segment(source, node) or number)
    if isinstance(node, ast.Name) and node.id in _MISSING:
        return None
    if isinstance(node, ast.Name) and node.id in ("true", "false"):
        return node.id == "true"
    if isinstance(node, ast.Call) and node.args and _CALL.fullmatch(ast.unparse(node.func) + "("):
        return _value(node.args[0], source)
    raise ValueError("not a literal")
