"""Progress of a run: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any

import polars as pl

from slm_vllm.amounts import format_clock, format_rate
from slm_vllm.json_text import encode
from slm_vllm.runs.console import Console
from slm_vllm.scoring.answers import score_answers
from slm_vllm.scoring.intervals import running_interval
from slm_vllm.types import Completion

log = logging.getLogger(__name__)

_TERMINAL_SECONDS = 0.5
_PLAIN_SECONDS = 10.0
_BAR_WIDTH = 20
# The rate is that of the last minute; the time left is told when there is something to go by.
_RATE_SECONDS = 60.0
_ETA_ANSWERS, _ETA_SECONDS = 10, 2.0


class Progress:
    """Counts answers and shows rate, running token recall and the time left.

    Args:
        console: Where to show it.
        label: What is running.
        total: Rows of the run.
        done_before: Rows that an earlier run answered.
    """

    def __init__(self, console: Console, label: str, total: int, done_before: int = 0) -> None:
        self._console, self._label, self._total = console, label, total
        self._before, self.done, self.errors = done_before, 0, 0
        self.tokens, self.prompt_tokens = 0, 0
        self.last_error: str | None = None
        self._recall_sum, self._recall_n = 0.0, 0
        self._unscored: list[tuple[str, list[str]]] = []
        self._started = time.monotonic()
        self._every = _TERMINAL_SECONDS if console.is_terminal else _PLAIN_SECONDS
        self._shown_at = self._logged_at = self._started
        self._moments: deque[tuple[float, int, int]] = deque()

    @property
    def running_recall(self) -> float | None:
        """Mean token recall of what this process has answered."""
        self._score()
        return self._recall_sum / self._recall_n if self._recall_n else None

    @property
    def total_done(self) -> int:
        """Rows answered, earlier runs included."""
        return self._before + self.done

    @property
    def rate(self) -> float:
        """Questions per second, lately."""
        seconds, answers, _ = self._lately
        return answers / seconds

    @property
    def _lately(self) -> tuple[float, int, int]:
        """Seconds, answers and new tokens: of the last minute, from the first answer on.

        Of all where there are few answers, and at the end.
        """
        then, done, tokens = self._moments[0] if self._moments else (self._started, 0, 0)
        if self.total_done == self._total or self.done - done < _ETA_ANSWERS:
            then, done, tokens = self._started, 0, 0
        return max(time.monotonic() - then, 1e-9), self.done - done, self.tokens - tokens

    @property
    def seconds_left(self) -> float | None:
        """Until the last answer; None while that cannot be told."""
        if self.done < _ETA_ANSWERS or not self._moments:
            return None
        if time.monotonic() - self._moments[0][0] < _ETA_SECONDS:
            return None
        return max(0, self._total - self.total_done) / self.rate

    def figures(self) -> dict[str, Any]:
        """What `state.json` says of the progress."""
        recall, left = self.running_recall, self.seconds_left
        interval = None if recall is None else running_interval(recall, self._recall_n)
        return {
            "done": self.total_done,
            "errors": self.errors,
            "questions_per_second": round(self.rate, 2) if self.done else None,
            "token_recall": None if recall is None else round(recall, 6),
            "token_recall_ci95": interval and [round(end, 6) for end in interval],
            "eta_seconds": None if left is None else round(left),
        }

    def add(self, prediction: str, answers: list[str], completion: Completion) -> None:
        """Counts an answer, and shows where the run is when it is time to."""
        self.done += 1
        self.tokens += completion.n_completion_tokens
        self.prompt_tokens += completion.n_prompt_tokens
        if completion.error is not None:
            self.errors += 1
            self.last_error = completion.error
        self._unscored.append((prediction, answers))
        self._note_moment()
        if len(self._unscored) >= 4096:
            self._score()
        if time.monotonic() - self._shown_at >= self._every:
            self.show()

    def show(self) -> None:
        """Shows the current state now."""
        self._score()
        self._shown_at = now = time.monotonic()
        line = self.line()
        if not self._console.is_terminal:
            self._console.say(line)
            return
        self._console.redraw(f"{self._bar()} {line}", line)
        if now - self._logged_at >= _PLAIN_SECONDS:
            self._logged_at = now
            log.info("%s", line)

    def line(self) -> str:
        """The state as one line of text."""
        seconds, answers, tokens = self._lately
        parts = [
            f"{self._label}: {self.total_done}/{self._total}",
            f"{format_rate(answers / seconds)} questions/s",
            f"{tokens / seconds:.0f} tokens/s",
        ]
        if self.errors == self.done:
            pass  # failures alone make no figure
        elif self.running_recall is not None:
            recall = f"token recall {self.running_recall:.3f}"
            parts.append(f"{recall} of {self._recall_n:,} new" if self._before else recall)
        else:
            parts.append("nothing scored: no answer of the dataset has a word so far")
        if self.errors:
            parts.append(f"{self.errors} errors")
        if left := self.seconds_left:
            parts.append(f"ETA {format_clock(left)}")
        return "  ".join(parts)

    def _note_moment(self) -> None:
        """Keeps one moment of each second of the last minute."""
        now = time.monotonic()
        if not self._moments or now - self._moments[-1][0] >= 1.0:
            self._moments.append((now, self.done, self.tokens))
            while now - self._moments[0][0] > _RATE_SECONDS:
                self._moments.popleft()

    def _score(self) -> None:
        if not self._unscored:
            return
        predictions, answers = zip(*self._unscored, strict=True)
        # From JSON a column of lists is made at once; from Python lists, one list at a time.
        lists = pl.Series([encode(answers)], dtype=pl.String)
        frame = pl.DataFrame(
            {
                "prediction": pl.Series(predictions, dtype=pl.String),
                "answers": lists.str.json_decode(pl.List(pl.List(pl.String))).explode(),
            }
        )
        recall = score_answers(frame)["token_recall"].drop_nulls()
        self._recall_sum += float(recall.sum())
        self._recall_n += len(recall)
        self._unscored.clear()

    def _bar(self) -> str:
        if not self._total:
            return ""
        full = min(_BAR_WIDTH, _BAR_WIDTH * self.total_done // self._total)
        return "[" + "#" * full + "." * (_BAR_WIDTH - full) + "]"
