"""Plain text out of pages whose HTML tags are tokens of their own (Natural Questions)."""

from __future__ import annotations

import html
import re

# Only names that HTML has, so that "x <y> z" and "a < b" stay as they are. Natural Questions joins
# attributes to the name with an underscore: <Th_colspan="2">.
_NAMES = (
    "a|abbr|article|aside|b|big|blockquote|body|br|caption|center|cite|code|col|colgroup|dd|del|"
    "dfn|div|dl|dt|em|figcaption|figure|font|footer|h[1-6]|head|header|hr|html|i|img|ins|kbd|li|"
    "main|mark|nav|ol|p|pre|q|s|samp|section|small|span|strike|strong|sub|sup|table|tbody|td|"
    "tfoot|th|thead|title|tr|tt|u|ul|var|wbr"
)
_ATTRIBUTE = r"""(?:[\s_]+[\w:-]+=(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+))"""
_TAG = re.compile(rf"<(/?)({_NAMES}){_ATTRIBUTE}*\s*/?>", re.IGNORECASE)
_UNSEEN = re.compile(r"<!--.*?-->|<(script|style)\b[^>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

_PARAGRAPHS = frozenset(
    "article aside blockquote body caption center div dl figure footer h1 h2 h3 h4 h5 h6 head "
    "header hr html main nav ol p pre section title ul".split()
)
_LINES = frozenset("br dd dt figcaption li".split())

_ODD_BLANK = re.compile(r"[^\S\n ]")
_BLANKS = re.compile(r" {2,}")
# str.replace and patterns that begin with a literal are several times faster than others, and a
# page has tens of thousands of blanks.
_REPLACEMENTS = (
    ("`` ", '"'),
    ("``", '"'),
    (" ''", '"'),
    ("''", '"'),
    *((f"{bracket} ", bracket) for bracket in "([{"),
)
_MENDS = (
    # Not the point of " .50".
    (re.compile(r" ([,.;:!?%)\]}]+)(?=[\s)\]}\"”’]|$)"), r"\1"),
    (re.compile(r"([$£€]) (?=\d)"), r"\1"),
    (re.compile(r" '(?<=\w ')(s|re|ve|ll|d|m)(?!\w)"), r"'\1"),
    (re.compile(r" ’(?<=\w ’)(s|re|ve|ll|d|m)(?!\w)"), r"’\1"),
    (re.compile(r" n(?<=\w n)(['’]t)(?!\w)"), r"n\1"),
)


def clean_text(text: str) -> str:
    """Removes HTML tags and keeps what they say about the layout.

    Paragraphs and headings are separated by a blank line, list items stand on lines of their own
    that begin with "- ", table rows are lines with " | " between the cells. The blanks that
    tokenised text has around punctuation are taken out ("( NFL ) , 's" becomes "(NFL),'s").
    Text without tags keeps its line breaks.
    """
    if "&" in text:
        text = _ENTITY.sub(lambda match: html.unescape(match[0]), text)
    if "<" in text:
        text = _UNSEEN.sub(" ", text)
        text = _lay_out(text)
    return _tidy(text)


def has_tags(text: str) -> bool:
    """Says whether `clean_text` would find an HTML tag."""
    return "<" in text and _TAG.search(text) is not None


def page_title(text: str) -> str:
    """Gives the text between the first <H1> and </H1> of a tokenised page, or ""."""
    match = re.search(r"<h1\b[^>]*>(.*?)</h1>", text, re.IGNORECASE | re.DOTALL)
    return clean_text(match[1]).replace("\n", " ") if match else ""


def _lay_out(text: str) -> str:
    """Replaces every tag by the line breaks, dash or bar it stands for."""
    pieces = _TAG.split(text)
    page = _Layout()
    page.write(pieces[0])
    for at in range(1, len(pieces), 3):
        page.tag(pieces[at + 1].lower(), closing=pieces[at] == "/")
        # Line breaks of the source mean nothing in HTML.
        page.write(pieces[at + 2].replace("\n", " "))
    page.end_row()
    return "".join(page.out)


class _Layout:
    """Text written so far, and the break that is due before the next word."""

    def __init__(self) -> None:
        self.out: list[str] = []
        self._break = 0  # line breaks due
        self._item = False  # a "- " is due
        self._lists = 0
        self._row: list[str] | None = None  # cells of the table row begun

    def tag(self, name: str, closing: bool) -> None:
        if name in ("tr", "table"):
            self.end_row()
            self._due(1 if name == "tr" else 2)
            self._row = [] if name == "tr" and not closing else None
        elif name in ("td", "th"):
            if not closing and self._row is not None:
                self._row.append("")
            elif not closing:
                self._row = [""]
        elif self._row is not None:
            # A paragraph or list inside a cell must not break the row.
            self.write(" " if name in _PARAGRAPHS or name in _LINES else "")
        elif name in ("ul", "ol"):
            self._lists = max(0, self._lists + (-1 if closing else 1))
            self._due(2 if self._lists == int(not closing) else 1)
        elif name == "li":
            self._item = False
            self._due(1)
            self._item = not closing
        elif name in _PARAGRAPHS or name in _LINES:
            # The end of a paragraph within a list does not part its items.
            self._due(2 if name in _PARAGRAPHS and not (closing and self._lists) else 1)

    def write(self, text: str) -> None:
        if self._row is not None:
            if self._row:
                self._row[-1] += text
            elif not text.isspace():
                self._row.append(text)
        elif text.isspace() and (self._break or self._item):
            return
        elif text:
            self.out.append("\n" * self._break + "- " * self._item)
            self.out.append(text)
            self._break, self._item = 0, False

    def end_row(self) -> None:
        if self._row is None:
            return
        cells = [cell.strip() for cell in self._row]
        self._row = None
        while cells and not cells[-1]:
            cells.pop()
        self.write(" | ".join(cells))

    def _due(self, breaks: int) -> None:
        # "- " is followed by the item's own first paragraph on the same line.
        if not self._item:
            self._break = max(self._break, breaks)


def _tidy(text: str) -> str:
    """Mends punctuation, collapses blanks and leaves at most one empty line in a row."""
    if _ODD_BLANK.search(text):
        text = _ODD_BLANK.sub(" ", text)
    text = _BLANKS.sub(" ", text)
    for old, new in _REPLACEMENTS:
        text = text.replace(old, new)
    for pattern, replacement in _MENDS:
        text = pattern.sub(replacement, text)
    lines: list[str] = []
    for line in text.split("\n"):
        line = line.strip()
        if line or (lines and lines[-1]):
            lines.append(line)
    return "\n".join(lines).strip()
