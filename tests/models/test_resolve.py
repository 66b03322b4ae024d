from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path

import pytest

from slm_vllm.errors import EngineError
from slm_vllm.models import resolve_model
from slm_vllm.models.local import content_hash, tensors_hash

hub = pytest.importorskip("huggingface_hub")
pytest.importorskip("huggingface_hub.constants")  # an attribute of it only once imported

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "some-org/some-model"


def make_model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def write_tensors(path: Path, changed: int | None) -> None:
    """Writes 100 tensors of 40 KB, of which one may have other values."""
    size = 40_000
    header = {
        str(n): {"dtype": "U8", "shape": [size], "data_offsets": [n * size, (n + 1) * size]}
        for n in range(100)
    }
    head = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    data = b"".join(bytes([1 if n == changed else 0]) * size for n in range(100))
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


@pytest.fixture
def hf_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "hf"
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    return cache


def put_in_cache(cache: Path, ref: str = "main") -> Path:
    repo = cache / f"models--{REPO.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / ref).write_text(COMMIT)
    return make_model(repo / "snapshots" / COMMIT)


class TestLocal:
    def test_a_complete_folder_is_taken_with_its_content_hash(self, tmp_path: Path) -> None:
        folder = make_model(tmp_path / "m")
        found = resolve_model(str(folder), cache_dir=tmp_path)
        assert (found.source, found.path, found.repo) == ("local", folder, None)
        assert found.revision == content_hash(folder)  # it has no tensors

    def test_a_revision_is_ignored_with_a_warning(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder = make_model(tmp_path / "m")
        with caplog.at_level(logging.WARNING):
            resolve_model(str(folder), "v1", cache_dir=tmp_path)
        assert "ignored" in caplog.text

    @pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
    def test_the_hash_follows_the_content(self, tmp_path: Path, name: str) -> None:
        folder = make_model(tmp_path / "m")
        before = content_hash(folder)
        changed = (folder / name).read_bytes()[:-1] + b"X"  # of the same size
        (folder / name).write_bytes(changed)
        assert content_hash(folder) != before

    def test_training_of_one_layer_alone_gives_another_revision(self, tmp_path: Path) -> None:
        folder = make_model(tmp_path / "m")
        write_tensors(folder / "model.safetensors", changed=None)
        before = resolve_model(str(folder), cache_dir=tmp_path).revision
        sampled = content_hash(folder)
        write_tensors(folder / "model.safetensors", changed=3)
        assert content_hash(folder) == sampled  # none of its blocks is in that layer
        after = resolve_model(str(folder), cache_dir=tmp_path).revision
        assert before is not None and before.startswith(f"{sampled}-")
        assert after is not None and after.startswith(f"{sampled}-") and after != before

    @pytest.mark.parametrize("head", [b"", b"\xff" * 8, b"\x02" + b"\0" * 7 + b"[]", b"\x09" * 30])
    def test_a_damaged_header_has_no_tensors(self, tmp_path: Path, head: bytes) -> None:
        (tmp_path / "model.safetensors").write_bytes(head)
        assert tensors_hash(tmp_path) == ""

    def test_the_hash_does_not_depend_on_the_place(self, tmp_path: Path) -> None:
        folder = make_model(tmp_path / "m")
        shutil.copytree(folder, tmp_path / "elsewhere")
        assert content_hash(folder) == content_hash(tmp_path / "elsewhere")

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("config.json", "no config.json"),
            ("tokenizer.json", "no tokenizer"),
            ("model.safetensors", "no weights"),
        ],
    )
    def test_what_is_missing_is_named(self, tmp_path: Path, name: str, said: str) -> None:
        folder = make_model(tmp_path / "m")
        (folder / name).unlink()
        with pytest.raises(EngineError, match=said) as caught:
            resolve_model(str(folder), cache_dir=tmp_path)
        assert str(folder) in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("config.json", "{", "not valid JSON"),
            ("config.json", "[]", "model_type"),
            ("model.safetensors", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            ("model.safetensors", "", "empty"),
            ("model.safetensors.index.json", "{}", "damaged"),
            (
                "model.safetensors.index.json",
                '{"weight_map": {"a": "model-1.safetensors", "b": "model.safetensors"}}',
                "1 of 2 weight files are missing",
            ),
        ],
    )
    def test_what_is_damaged_is_named(
        self, tmp_path: Path, name: str, content: str, said: str
    ) -> None:
        folder = make_model(tmp_path / "m")
        (folder / name).write_text(content)
        with pytest.raises(EngineError, match=said):
            resolve_model(str(folder), cache_dir=tmp_path)

    def test_an_adapter_is_called_one(self, tmp_path: Path) -> None:
        folder = make_model(tmp_path / "m")
        (folder / "config.json").rename(folder / "adapter_config.json")
        with pytest.raises(EngineError, match="adapter"):
            resolve_model(str(folder), cache_dir=tmp_path)

    @pytest.mark.parametrize("path", ["./nowhere", "/no/where", "~/no-such-model", "a/b/c"])
    def test_a_path_that_leads_nowhere_is_not_asked_of_the_hub(
        self, tmp_path: Path, path: str
    ) -> None:
        with pytest.raises(EngineError, match="does not exist"):
            resolve_model(path, cache_dir=tmp_path)

    def test_a_file_is_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "m.gguf"
        file.touch()
        with pytest.raises(EngineError, match="is a file"):
            resolve_model(str(file), cache_dir=tmp_path)


class TestCache:
    def test_the_main_branch_is_found_with_its_commit(self, hf_cache: Path, tmp_path: Path) -> None:
        snapshot = put_in_cache(hf_cache)
        found = resolve_model(REPO, cache_dir=tmp_path)
        assert (found.source, found.path, found.repo) == ("cache", snapshot, REPO)
        assert found.revision == COMMIT

    @pytest.mark.parametrize("revision", ["v1.0", COMMIT])
    def test_a_tag_or_a_commit_is_found(
        self, hf_cache: Path, tmp_path: Path, revision: str
    ) -> None:
        put_in_cache(hf_cache, ref="v1.0")
        assert resolve_model(REPO, revision, cache_dir=tmp_path).revision == COMMIT

    def test_another_revision_is_not_taken_for_the_pinned_one(
        self, hf_cache: Path, tmp_path: Path
    ) -> None:
        put_in_cache(hf_cache)
        with pytest.raises(EngineError, match="revision 'v2'"):
            resolve_model(REPO, "v2", cache_dir=tmp_path)

    def test_an_incomplete_snapshot_is_not_taken(self, hf_cache: Path, tmp_path: Path) -> None:
        (put_in_cache(hf_cache) / "model.safetensors").unlink()
        with pytest.raises(EngineError, match="incomplete .no weights"):
            resolve_model(REPO, cache_dir=tmp_path)

    def test_offline_and_absent_says_what_was_tried_and_what_to_do(
        self, hf_cache: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(EngineError) as caught:
            resolve_model(REPO, cache_dir=tmp_path)
        for part in (REPO, str(hf_cache), "HF_HUB_OFFLINE", "HF_HOME", "--model demo"):
            assert part in str(caught.value)

    def test_an_impossible_name_is_refused(self, hf_cache: Path, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="neither"):
            resolve_model("not a name!", cache_dir=tmp_path)


class TestHub:
    @pytest.fixture(autouse=True)
    def online(self, hf_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", False)

    def fail_with(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        def download(*_: object) -> Path:
            raise error

        monkeypatch.setattr("slm_vllm.models.resolve.download", download)

    def test_a_downloaded_model_has_its_commit(
        self, hf_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("slm_vllm.models.resolve.download", lambda *_: put_in_cache(hf_cache))
        found = resolve_model(REPO, cache_dir=tmp_path)
        assert (found.source, found.revision) == ("hub", COMMIT)

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("GatedRepoError", "licence"),
            ("RepositoryNotFoundError", "private"),
            ("RevisionNotFoundError", "no revision 'v9'"),
        ],
    )
    def test_refusals_are_told_apart(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
    ) -> None:
        kind = getattr(hub.errors, name)
        error = kind.__new__(kind)  # their constructors want a response
        self.fail_with(monkeypatch, error)
        with pytest.raises(EngineError, match=said):
            resolve_model(REPO, "v9", cache_dir=tmp_path)

    def test_no_token_is_shown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fail_with(monkeypatch, OSError("bad header hf_abcDEF123"))
        with pytest.raises(EngineError) as caught:
            resolve_model(REPO, cache_dir=tmp_path)
        assert "abcDEF123" not in str(caught.value)
        assert "OSError" in str(caught.value)

    def test_an_unreachable_hub_is_given_up_soon(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A port of this machine that nobody listens on: refused at once, and no name to look up.
        monkeypatch.setattr(hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        started = time.monotonic()
        with pytest.raises(EngineError, match="could not be reached"):
            resolve_model(REPO, cache_dir=tmp_path)
        assert time.monotonic() - started < 60
