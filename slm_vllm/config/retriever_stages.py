"""Sections of `retriever` for models that act before and after a search."""

from __future__ import annotations

from pydantic import Field, field_validator

from slm_vllm.config.section import Section, UserPath
from slm_vllm.config.template import checked_template

EVALUATED = "evaluated"


class RerankerConfig(Section):
    """A model that reorders the best passages of the first search."""

    model: UserPath = "cross-encoder/ms-marco-MiniLM-L6-v2"
    """A cross-encoder; `evaluated`: the model that is evaluated says Yes or No to each."""
    candidates: int = Field(default=20, ge=1)
    """How many passages of the first search it reads; never fewer than the search is judged by: 10,
    or `top_k`."""

    @property
    def is_evaluated(self) -> bool:
        """Whether the evaluated model is asked, over its own engine."""
        return self.model == EVALUATED


class ExpansionConfig(Section):
    """What the evaluated model writes about a question, to be searched for with it."""

    prompt: str
    """A `str.format` string that knows `{question}`."""
    max_new_tokens: int = Field(default=64, ge=1)
    repeat: int = Field(default=1, ge=0)
    """How often the question stands before what was written, so that its words keep their weight
    in a search by words."""

    @field_validator("prompt")
    @classmethod
    def _asks_the_question(cls, value: str) -> str:
        return checked_template(value, {"question": ""}, ("question",))
