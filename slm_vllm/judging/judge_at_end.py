"""`judge.model` in a run's configuration: its answers are graded when the run has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slm_vllm.config.schema import Config
from slm_vllm.judging.choice import has_files, judge_config
from slm_vllm.judging.judge import check_judge_config
from slm_vllm.judging.session import JudgeOptions, check_votes, judge_runs
from slm_vllm.models.resolve import check_local


@dataclass(frozen=True, slots=True)
class JudgeAtEnd:
    """The judge of a command, known to be valid before anything is asked.

    Attributes:
        config: Its configuration.
        options: How it is asked.
        folders: Of the runs.
    """

    config: Config
    options: JudgeOptions
    folders: Sequence[Path]

    def __call__(self, results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Grades the answers of the runs, which have just ended, over one load.

        Args:
            results: Contents of their `results.json`, in the order of the folders; one with an
                `error` has nothing to judge.

        Returns:
            The results, with the judge's figures among their metrics.
        """
        ended = [
            folder for r, folder in zip(results, self.folders, strict=True) if "error" not in r
        ]
        if not ended:
            return [dict(result) for result in results]
        judgements = iter(judge_runs(ended, self.config, self.options))
        return [
            dict(result)
            if "error" in result
            else {**result, "metrics": {**result["metrics"], **next(judgements)["metrics"]}}
            for result in results
        ]


def judge_at_end(
    configs: Sequence[Config], config_dir: str | Path | None = None, *, own_process: bool = False
) -> JudgeAtEnd | None:
    """What grades the answers of a command's runs, None where their configuration has no judge.

    Args:
        configs: The runs' configurations.
        config_dir: A folder with configuration groups of the user's.
        own_process: See `RunOptions`.

    Raises:
        ConfigError: It cannot be used.
        EngineError: The folder of its model does not hold one.
    """
    section = configs[0].judge
    if section is None:
        return None
    found = judge_config(
        section.model,
        section.base_url,
        api_key_env=section.api_key_env,
        overrides=[f"cache_dir={configs[0].cache_dir}", *section.settings],
        config_dir=config_dir,
    )
    check_votes(section.votes)
    check_judge_config(found)
    if has_files(found):
        check_local(found.model.path)
    options = JudgeOptions(votes=section.votes, own_process=own_process)
    return JudgeAtEnd(found, options, [one.experiment.folder for one in configs])
