"""Finds answers that decline, by phrases and without a model.

A cheap baseline for a judge's "not attempted". It knows phrases of ten languages and no meaning: a
text that goes on to answer ("I am not sure, but 1961") is none where the phrase only hedges, and a
quotation of such a phrase is one.
"""

from __future__ import annotations

import polars as pl

# Over lower-case text; an apostrophe is ' by then.
_PHRASES: dict[str, tuple[str, ...]] = {
    "en": (
        r"\b(?:i|we) (?:really |just |simply )?(?:do not|don't|did not|didn't) "
        r"(?:know|have (?:an|any|the|enough) (?:answer|information|idea|knowledge|data))",
        r"\bno (?:idea|answer|clue)\b",
        r"\b(?:i|we)(?:'m| am|'re| are) (?:not able|unable) to\b",
        r"\b(?:i|we) (?:cannot|can't|can not|could not|couldn't) "
        r"(?:answer|determine|help|say|tell|find|provide|recall|assist)",
        r"\b(?:i have|there is) no (?:information|knowledge|data|idea)\b",
        r"\bnot something i can answer\b",
        r"\b(?:rather|better) not (?:guess|answer|say)\b",
        r"\b(?:unknown|not known) to me\b",
        r"^\W*(?:unknown|n/?a|not sure|unanswerable|i am not sure|i'm not sure)\W*$",
    ),
    "ru": (
        r"\b(?:я )?(?:этого |точно )?не (?:знаю|могу|помню|берусь|смогу)\b",
        r"\bзатрудняюсь\b",
        r"\bнет (?:сведений|данных|информации|ответа)\b",
        r"\bответа у меня нет\b",
        r"\bмне (?:это |об этом )?(?:неизвестно|не известно)\b",
        r"\bвоздержусь\b",
    ),
    "de": (
        r"\bweiß (?:ich|es|das) (?:es |das )?(?:leider )?nicht\b",
        r"\bich weiß (?:es |das )?(?:leider )?nicht\b",
        r"\bkeine (?:ahnung|antwort|angabe|informationen?)\b",
        r"\b(?:kann|könnte) ich (?:leider )?(?:nicht|nichts)\b",
        r"\bich kann (?:das|die frage|dazu|diese frage) (?:leider )?(?:nicht|nichts)\b",
        r"\b(?:unbekannt|nicht bekannt)\W*$",
        r"\bmöchte nicht raten\b",
        r"\benthalte mich\b",
        r"\bentzieht sich meiner kenntnis\b",
    ),
    "fr": (
        r"\bje ne (?:sais|connais|peux|suis pas en mesure)\b",
        r"\baucune (?:idée|information|réponse)\b",
        r"\bje n'ai (?:pas|aucune)\b",
    ),
    "es": (
        r"\bno (?:lo )?(?:sé|sabría|conozco|recuerdo|puedo|tengo (?:esa |la )?(?:información|idea|"
        r"respuesta))\b",
        r"\bno dispongo de\b",
        r"\bdesconozco\b",
        r"\bprefiero no\b",
        r"^\W*sin respuesta\b",
    ),
    "pt": (
        r"\bnão (?:sei|conheço|posso|consigo|tenho (?:essa |a )?(?:informação|resposta))\b",
        r"\bdesconheço\b",
    ),
    "it": (
        r"\bnon (?:lo )?(?:so|conosco|posso|ricordo|ho (?:informazioni|idea|una risposta))\b",
        r"\bnessuna idea\b",
    ),
    "zh": (
        r"不知道|不清楚|无法(?:回答|确定|提供|得知)|没有(?:相关|足够)?(?:的)?(?:信息|答案|资料|把握)",
        r"无可奉告|不作答|不回答|记不起来|超出了?我的(?:知识|能力)",
    ),
    "ja": (r"わかりません|分かりません|知りません|存じません|お答えできません|回答できません",),
    "ko": (r"모르겠|모릅니다|알 수 없|답변할 수 없|대답할 수 없",),
}
_PATTERN = "(?:" + "|".join(part for parts in _PHRASES.values() for part in parts) + ")"


def is_refusal(text: str | pl.Expr) -> pl.Expr:
    """Whether a text is empty or says that it is no answer.

    Args:
        text: A String column; null counts as empty.
    """
    column = (pl.col(text) if isinstance(text, str) else text).fill_null("")
    folded = column.str.to_lowercase().str.replace_all("[’`´]", "'")
    return (column.str.strip_chars() == "") | folded.str.contains(_PATTERN)
