"""Plain text from tokenised HTML (Natural Questions)."""

from __future__ import annotations

import html
import re

from slm_vllm.datasets.pages.detokenise import detokenise

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
_HIDES = re.compile(r"!--|/(?:script|style)", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")

_PARAGRAPHS = (
    "article aside blockquote body caption center div dl figure footer h1 h2 h3 h4 h5 h6 head "
    "header hr html main nav ol p pre section title ul".split()
)
_LINES = "br dd dt figcaption li".split()

_TITLE = re.compile(r"<h1\b[^>]*>(.*?)</h1>", re.IGNORECASE | re.DOTALL)

# What a tag does to the layout.
_CELL, _CELL_END, _TABLE, _ROW, _ROW_END, _LIST, _LIST_END, _ITEM, _ITEM_END = range(9)
_PARAGRAPH, _PARAGRAPH_END, _LINE, _INLINE, _NO_TAG = range(9, 14)
_EFFECTS = dict.fromkeys(_LINES, (_LINE, _LINE))
_EFFECTS |= dict.fromkeys(_PARAGRAPHS, (_PARAGRAPH, _PARAGRAPH_END))
_EFFECTS |= dict.fromkeys(("td", "th"), (_CELL, _CELL_END))
_EFFECTS |= dict.fromkeys(("ul", "ol"), (_LIST, _LIST_END))
_EFFECTS |= {"table": (_TABLE, _TABLE), "tr": (_ROW, _ROW_END), "li": (_ITEM, _ITEM_END)}


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
        text = _lay_out(text) or _lay_out(_UNSEEN.sub(" ", text), may_hide=False) or ""
    return detokenise(text)


def has_tags(text: str) -> bool:
    """Says whether `clean_text` would find an HTML tag."""
    return "<" in text and _TAG.search(text) is not None


def page_title(text: str) -> str:
    """Gives the text between the first <H1> and </H1> of a tokenised page, or ""."""
    match = _TITLE.search(text) if "<H1" in text or "<h1" in text else None
    return clean_text(match[1]).replace("\n", " ") if match else ""


def _effect(tag: str) -> int:
    """Gives what "<tag>" does."""
    match = _TAG.fullmatch(f"<{tag}>")
    if match is None:
        return _NO_TAG
    return _EFFECTS.get(match[2].lower(), (_INLINE, _INLINE))[match[1] == "/"]


def _lay_out(text: str, may_hide: bool = True) -> str | None:  # noqa: C901
    """Replaces every tag by the line breaks, dash or bar it stands for.

    Returns:
        None where a comment, script or style may have to be taken out first, unless
        that is done.
    """
    # One long loop without calls, because a page has thousands of tags.
    known: dict[str, int] = {}  # a page has few different tags
    out: list[str] = []
    due = 0  # line breaks due before the next word
    item = False  # a "- " is due
    lists = 0
    row: list[str] | None = None  # cells of the table row begun
    words, *pieces = text.split("<")
    tagged, broken = False, "\n" in text
    pieces.append("table>")  # ends a row that is still open
    for piece in pieces:
        tag, closed, rest = piece.partition(">")
        effect = known.get(tag) if closed else None
        if effect is None:
            if may_hide and _HIDES.match(tag):
                return None
            effect = _NO_TAG
            if closed:
                effect = known[tag] = _effect(tag)
        if effect == _NO_TAG:
            words += "<" + piece
            continue
        if broken and tagged:  # line breaks of the source mean nothing in HTML
            words = words.replace("\n", " ")
        if row is not None:
            if row:
                row[-1] += words
            elif not words.isspace():
                row.append(words)
        elif words and not ((due or item) and words.isspace()):
            if item:
                words = words.lstrip(" ")
            if due or item:
                out.append("\n" * due + "- " * item)
            out.append(words)
            due, item = 0, False
        words, tagged = rest, True

        if effect == _CELL:
            if row is None:
                row = [""]
            else:
                row.append("")
        elif effect == _CELL_END:
            pass
        elif effect <= _ROW_END:
            if row and (line := _row_text(row)):
                out.append("\n" * due + "- " * item + line)
                due, item = 0, False
            row = [] if effect == _ROW else None
            if not item and due < 2:
                due = 2 if effect == _TABLE else due or 1
        elif row is not None:
            # A paragraph or list inside a cell must not break the row.
            if row and effect != _INLINE:
                row[-1] += " "
            elif not row and effect == _INLINE:
                row.append("")
        elif effect in (_ITEM, _ITEM_END):
            due, item = due or 1, effect == _ITEM
        elif effect != _INLINE:
            lists -= effect == _LIST_END and lists > 0
            # What ends a paragraph within a list does not part its items.
            breaks = 2 if effect == _PARAGRAPH or (effect != _LINE and not lists) else 1
            lists += effect == _LIST
            # "- " is followed by the item's own first paragraph on the same line.
            if not item and due < breaks:
                due = breaks
    return "".join(out)


def _row_text(cells: list[str]) -> str:
    cells = [cell.strip() for cell in cells]
    while cells and not cells[-1]:
        cells.pop()
    return " | ".join(cells)
