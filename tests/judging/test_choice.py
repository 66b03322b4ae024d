"""What a user names as the judge."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from slm_vllm.config.compose import compose_config
from slm_vllm.errors import ConfigError
from slm_vllm.judging.choice import judge_config
from slm_vllm.judging.judge_at_end import judge_at_end


def test_a_configuration_made_for_answers_does_not_sample_the_judge(tmp_path: Path) -> None:
    own = {"generation": {"temperature": 0.7, "n": 5, "max_new_tokens": 512}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(own))
    found = judge_config("demo", overrides=["hardware=cpu"], config_dir=tmp_path)
    assert (found.generation.temperature, found.generation.n) == (0.0, 1)
    assert found.generation.max_new_tokens == 16


def test_a_server_without_a_name_is_asked_as_a_chat() -> None:
    found = judge_config(None, ["http://localhost:8000/v1"], overrides=["hardware=cpu"])
    assert found.engine.name == "openai" and not found.engine.takes_prompts
    whole = judge_config("demo", ["http://localhost:8000/v1"], overrides=["hardware=cpu"])
    assert whole.engine.takes_prompts


def test_a_judge_has_to_be_named() -> None:
    with pytest.raises(ConfigError, match="--base-url"):
        judge_config(None)


def test_a_run_gives_its_judge_settings_of_its_own() -> None:
    words = ["hardware=cpu", "judge.model=demo", "judge.settings=['engine.name=ray']"]
    found = judge_at_end([compose_config(words)])
    assert found is not None and found.config.engine.name == "ray"
