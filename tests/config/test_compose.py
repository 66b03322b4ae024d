from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slm_vllm.config.compose import compose_config, group_choices, has_blanks
from slm_vllm.config.overrides import Override, parse_override
from slm_vllm.errors import ConfigError
from slm_vllm.monitoring import device
from slm_vllm.monitoring.device import Device

MODELS = (
    "smollm2_135m",
    "smollm2_360m",
    "smollm2_1.7b",
    "qwen_0.6b",
    "qwen_1.7b",
    "qwen_4b",
)
DATASETS = ("local_nq", "local_simple_qa", "rag_nq", "nq", "simple_qa")
MODES = {
    "no_context": ("none", None),
    "oracle": ("oracle", None),
    "oracle_context": ("oracle", None),
    "retriever": ("retriever", None),
    "retriever_context": ("retriever", None),
    "test_10_samples": ("none", 10),
    "test_100_samples": ("none", 100),
}


def message(*words: str, config_dir: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compose_config(words, config_dir)
    return str(caught.value)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A configuration folder of the user's own, with a name that needs quoting everywhere."""
    folder = tmp_path / "my configs, a=b 'c' ${d}"
    (folder / "model").mkdir(parents=True)
    (folder / "dataset").mkdir()
    (folder / "model" / "tiny.yaml").write_text("name: tiny\npath: ./tiny\n")
    (folder / "dataset" / "quiz.yaml").write_text("name: quiz\npath: quiz.jsonl\n")
    return folder


def test_a_number_may_be_a_name() -> None:
    assert (
        compose_config(["experiment.name=2024", "experiment.strict=true"]).experiment.name == "2024"
    )


@pytest.mark.parametrize("name", MODELS)
def test_models(name: str) -> None:
    config = compose_config([f"model={name}"])
    assert config.model.name == name
    assert config.model.path.count("/") == 1


@pytest.mark.parametrize("name", DATASETS)
def test_datasets(name: str) -> None:
    config = compose_config([f"dataset={name}"])
    assert config.dataset.name == name
    assert config.dataset.kind == ("simple_qa" if "simple" in name else "nq")


@pytest.mark.parametrize("name", MODES)
def test_modes(name: str) -> None:
    config = compose_config([f"experiment_mode={name}"])
    assert config.experiment_mode.name == name
    assert (config.experiment_mode.context, config.max_samples) == MODES[name]


def test_every_shipped_file_composes() -> None:
    for group in ("corpus", "retriever", "prompt", "hardware"):
        for name, path in group_choices(group).items():
            if has_blanks(path):
                continue
            assert getattr(compose_config([f"{group}={name}"]), group).name == name


def test_experiment_name_follows_the_choices() -> None:
    words = ["model=qwen_4b", "dataset=nq", "experiment_mode=oracle"]
    assert compose_config(words).experiment.name == "qwen_4b_nq_oracle"
    assert compose_config([*words, "model.name=q4"]).experiment.name == "q4_nq_oracle"
    other = compose_config([*words, "experiment.name=${experiment_mode.name}-${experiment.seed}"])
    assert other.experiment.name == "oracle-42"


def test_overrides() -> None:
    config = compose_config(
        [
            "generation.max_new_tokens=64",
            "generation.max_new_tokens=65",
            "generation.stop=[a,'b c']",
            "model.max_model_len=512",
            "+model.dtype=float32",
            "dataset.options.anything=3",
            "retriever.reranker.candidates=7",
        ]
    )
    assert config.generation.max_new_tokens == 65
    assert config.generation.stop == ("a", "b c")
    assert (config.model.max_model_len, config.model.dtype) == (512, "float32")
    assert config.dataset.options == {"anything": 3}
    assert config.retriever.reranker is not None and config.retriever.reranker.candidates == 7


def test_smaller_limit_of_samples_wins() -> None:
    mode = "experiment_mode=test_10_samples"
    assert compose_config([mode, "experiment.max_samples=5"]).max_samples == 5
    assert compose_config([mode, "experiment.max_samples=50"]).max_samples == 10


def test_override_word_is_split_at_the_first_sign() -> None:
    assert parse_override("dataset.path=a=b.jsonl") == Override("dataset.path", "a=b.jsonl")


def test_own_folder(own: Path) -> None:
    config = compose_config(["model=tiny", "dataset=quiz", "prompt=plain"], own)
    assert (config.model.path, config.dataset.path) == ("./tiny", "quiz.jsonl")
    assert config.experiment.name == "tiny_quiz_no_context"
    assert "there is no such model" in message("model=tiny")


def test_own_file_shadows_a_shipped_one(own: Path) -> None:
    (own / "model" / "qwen_4b.yaml").write_text("name: mine\npath: my/qwen\n")
    assert group_choices("model", own)["qwen_4b"].parent.parent == own.resolve()
    assert compose_config(["model=qwen_4b"], own).model.path == "my/qwen"
    assert compose_config(["model=qwen_4b"]).model.path == "Qwen/Qwen3-4B"


def test_own_file_builds_on_a_shipped_one(own: Path) -> None:
    (own / "model" / "long.yaml").write_text(
        "defaults: [qwen_4b, _self_]\nname: long\nmax_model_len: 99\n"
    )
    model = compose_config(["model=long"], own).model
    assert (model.name, model.path, model.max_model_len) == ("long", "Qwen/Qwen3-4B", 99)


def test_own_folder_that_is_missing(tmp_path: Path) -> None:
    assert "there is no such folder" in message(config_dir=tmp_path / "none")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("model=qwen_4", ["model=qwen_4", "Did you mean 'qwen_4b'?", "smollm2_135m"]),
        ("experiment_mode=orakel", ["Did you mean 'oracle'?"]),
        ("hardware=v10", ["Did you mean 'v100'?", "auto"]),
        ("modle=qwen_4b", ["'modle'", "Did you mean 'model'?"]),
        ("generation.max_new_token=3", ["'generation'", "Did you mean 'max_new_tokens'?"]),
        ("experiment.name.first=3", ["'experiment.name' is a value", "'first'"]),
        ("experiment.seed=soon", ["experiment.seed", "integer", "'soon'"]),
        ("generation.max_new_tokens=0", ["generation.max_new_tokens", "equal to 1", "found 0"]),
        ("generation.max_new_tokens=true", ["generation.max_new_tokens", "number, found true"]),
        ("dataset.path=", ["dataset.path", "must not be empty"]),
        ("experiment.name=' '", ["experiment.name", "must not be empty"]),
        ("generation.top_p=1.5", ["generation.top_p", "equal to 1", "found 1.5"]),
        ("model.dtype=int4", ["model.dtype", "'bfloat16'", "'int4'"]),
        ("prompt.few_shot=[{question: q}]", ["prompt.few_shot.0.answer", "required"]),
        ("experiment.name=${modl.name}", ["modl.name", "experiment.name"]),
        ("model=custom", ["model.path"]),
        ("hello", ["'hello' is not an override", "key=value"]),
        ("=3", ["is not an override"]),
        ("generation.stop=[", ["generation.stop=[", "cannot be read"]),
        ('generation.stop=["a",""]', ["generation.stop.1", "at least 1 character"]),
        ("retriever.passage.stride=101", ["retriever.passage", "stride 101", "size 100"]),
    ],
)
def test_errors_name_the_key_and_the_fix(word: str, expected: list[str]) -> None:
    text = message(word)
    for part in expected:
        assert part in text


def test_all_problems_are_listed() -> None:
    text = message("generation.top_p=0", "experiment.seed=-1")
    assert "generation.top_p" in text and "experiment.seed" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: [x\npath: y\n", ["bad.yaml", "YAML"]),
        ("name: caf\u00e9\npath: y\n".encode("latin-1"), ["bad.yaml", "utf-8"]),
        (b"name: x\nname: y\npath: z\n", ["bad.yaml", "duplicate key"]),
        (b"- x\n", ["bad.yaml", "keys"]),
        (b"", ["bad.yaml", "keys"]),
        (b"name: x\n", ["model.path", "required"]),
        (b"name: x\npath: y\npth: z\n", ["model.pth", "Did you mean 'path'?"]),
    ],
)
def test_broken_files(own: Path, content: bytes, expected: list[str]) -> None:
    (own / "model" / "bad.yaml").write_bytes(content)
    text = message("model=bad", config_dir=own)
    for part in expected:
        assert part in text


@pytest.mark.parametrize("name", ["question_template", "context_template", "passage_template"])
@pytest.mark.parametrize("field", ["{nothing}", "{}", "{", "}", "{question.x}", "{question[x]}"])
def test_prompts_that_cannot_be_filled_in(name: str, field: str) -> None:
    field = field.replace("question", "text") if name == "passage_template" else field
    text = message(f"prompt.{name}='{field}'")
    assert f"prompt.{name}: cannot be filled in" in text
    assert ("{text}" if name == "passage_template" else "{question}") in text


@pytest.mark.parametrize(
    "name, template, missing",
    [
        ("question_template", "Answer: {{question}}", "{question}"),
        ("context_template", "{context}", "{question}"),
        ("context_template", "{question}", "{context}"),
        ("passage_template", "[{rank}] {title}", "{text}"),
    ],
)
def test_prompts_that_would_show_too_little(name: str, template: str, missing: str) -> None:
    assert f"prompt.{name}: must hold {missing}" in message(f"prompt.{name}='{template}'")


def test_fields_of_a_prompt_may_be_formatted() -> None:
    words = "prompt.passage_template='{rank:02d} {text!r:.300}'"
    assert compose_config([words]).prompt.passage_template == "{rank:02d} {text!r:.300}"


GPUS = {"v100": (7, 0), "turing": (7, 5), "ampere": (8, 6), "hopper": (9, 0), "cpu": None}


@pytest.mark.parametrize("profile", GPUS)
def test_hardware_follows_the_device(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    monkeypatch.setattr(device, "detect_device", lambda: Device("any", "any", GPUS[profile]))
    assert compose_config().hardware.name == profile
    assert compose_config(["hardware=auto"]).hardware.name == profile
    assert compose_config(["hardware=turing"]).hardware.name == "turing"


def test_composing_imports_nothing_heavy() -> None:
    code = (
        "import sys; from slm_vllm.config.compose import compose_config; compose_config();"
        "heavy = {'torch', 'vllm', 'transformers', 'clearml', 'polars', 'numpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
