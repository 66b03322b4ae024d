from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from slm_vllm.errors import EngineError
from slm_vllm.models.tokenizer import load_tokenizer

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{"),
        ("tokenizer.json", "version https://git-lfs.github.com/spec/v1"),
        ("tokenizer.json", json.dumps({"model": {"type": "Nothing"}})),
        ("tokenizer.json", "\0\0"),
        ("tokenizer_config.json", "[1"),
        ("tokenizer_config.json", json.dumps({"tokenizer_class": 3})),
        ("tokenizer_config.json", json.dumps({"tokenizer_class": "NoSuchTokenizer"})),
        ("tokenizer_config.json", json.dumps(["a"])),
        ("tokenizer_config.json", json.dumps({"added_tokens_decoder": {"x": 1}})),
    ],
)
def test_a_damaged_tokenizer_is_a_line(
    tiny_model: Path, tmp_path: Path, name: str, content: str
) -> None:
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / name).write_text(content)
    try:
        load_tokenizer(tmp_path)
    except EngineError as error:
        assert str(tmp_path) in str(error) and len(str(error).splitlines()) == 1


def test_of_another_kind_of_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoTokenizer

    class PanicException(BaseException):
        """As Rust's panics are."""

    for kind, expected in ((TypeError, EngineError), (PanicException, EngineError)):

        def fail(*_: object, kind: type[BaseException] = kind, **__: object) -> None:
            raise kind("index out of bounds")

        monkeypatch.setattr(AutoTokenizer, "from_pretrained", fail)
        with pytest.raises(expected, match="index out of bounds"):
            load_tokenizer(tmp_path)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_tokenizer(tmp_path)


def test_what_is_not_used_is_left_out_and_still_there_for_others() -> None:
    code = """
import sys
from slm_vllm.models.tokenizer import import_ahead, without_unused_packages
import_ahead()
with without_unused_packages():
    from transformers.generation import candidate_generator
    from transformers.loss import loss_utils
print("sklearn" in sys.modules, "scipy.optimize" in sys.modules, "scipy.signal" in sys.modules)
from transformers.utils import is_scipy_available, is_sklearn_available
import scipy.signal, sklearn.metrics
print(is_sklearn_available(), is_scipy_available())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"] * 3 + ["True"] * 2


def test_other_threads_find_what_one_leaves_out() -> None:
    code = """
import threading
from slm_vllm.models.tokenizer import without_unused_packages
def other():
    import scipy.signal
    print("found")
with without_unused_packages():
    try:
        import scipy.signal
    except ModuleNotFoundError as error:
        print(error.name)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["scipy.signal", "found"]
