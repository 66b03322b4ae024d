"""Whole files, locks and hashes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from slm_vllm import durable
from slm_vllm.models.local import content_hash
from slm_vllm.retrieval.encoder import model_identity
from slm_vllm.retrieval.index_files import read_seal, write_seal


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestFiles:
    def test_a_failed_write_leaves_what_was_there(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        durable.write_text(path, "old")
        with pytest.raises(ValueError, match="half"), durable.replacing(path) as temporary:
            temporary.write_text("ne")
            raise ValueError("half")
        assert path.read_text() == "old"
        assert names(tmp_path) == ["file"]

    def test_content_is_on_the_disk_before_the_name_and_the_name_when_it_returns(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps = []
        fsync, replace = os.fsync, os.replace

        def recorded_fsync(descriptor: int) -> None:
            steps.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
            fsync(descriptor)

        def recorded_replace(source: Path, target: Path) -> None:
            steps.append("rename")
            replace(source, target)

        monkeypatch.setattr(os, "fsync", recorded_fsync)
        monkeypatch.setattr(os, "replace", recorded_replace)
        durable.write_text(tmp_path / "file", "text", tmp_path / "part")
        assert steps == ["sync part", "rename", f"sync {tmp_path.name}"]

    def test_a_link_stays_a_link_and_a_pipe_a_pipe(self, tmp_path: Path) -> None:
        file, link, pipe = tmp_path / "table.txt", tmp_path / "link", tmp_path / "pipe"
        file.write_text("before")
        link.symlink_to(file)
        durable.write_text(link, "after")
        assert link.is_symlink() and file.read_text() == "after"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        durable.write_text(pipe, "through")
        assert os.read(reader, 99) == b"through" and pipe.is_fifo()
        os.close(reader)

    def test_half_a_surrogate_pair_is_no_error(self, tmp_path: Path) -> None:
        durable.write_text(tmp_path / "file", "a\ud800é")
        assert (tmp_path / "file").read_text("utf-8") == "a?é"


class TestFolders:
    @pytest.fixture
    def made(self, tmp_path: Path) -> Path:
        made = tmp_path / ".made"
        (made / "inner").mkdir(parents=True)
        (made / "inner" / "file").write_text("new")
        return made

    @staticmethod
    def is_whole(folder: Path) -> bool:
        return (folder / "inner").is_dir()

    def test_it_gets_its_name(self, made: Path, tmp_path: Path) -> None:
        durable.publish_folder(made, tmp_path / "folder", self.is_whole)
        assert (tmp_path / "folder" / "inner" / "file").read_text() == "new"
        assert names(tmp_path) == ["folder"]

    def test_a_whole_one_of_that_name_is_kept(self, made: Path, tmp_path: Path) -> None:
        (tmp_path / "folder" / "inner").mkdir(parents=True)
        durable.publish_folder(made, tmp_path / "folder", self.is_whole)
        assert names(tmp_path / "folder" / "inner") == []
        assert names(tmp_path) == ["folder"]

    def test_a_damaged_one_is_replaced(self, made: Path, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "torn").write_text("old")
        durable.publish_folder(made, tmp_path / "folder", self.is_whole)
        assert names(tmp_path / "folder") == ["inner"]
        assert names(tmp_path) == ["folder"]

    def test_one_that_is_filled_can_be_read_by_others(self, tmp_path: Path) -> None:
        with durable.new_folder(tmp_path / "f", Path.is_dir) as new:
            (new / "a").write_text("new")
        assert names(tmp_path) == ["f"] and names(tmp_path / "f") == ["a"]
        assert (tmp_path / "f").stat().st_mode & 0o777 == 0o755

    def test_of_one_that_is_not_filled_nothing_is_left(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError), durable.new_folder(tmp_path / "f", Path.is_dir) as new:
            (new / "a").write_text("half")
            raise ValueError
        assert names(tmp_path) == []

    def test_another_fault_is_told_and_loses_nothing(self, made: Path, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            durable.publish_folder(made, tmp_path / "missing" / "folder", self.is_whole)
        assert self.is_whole(made)


class TestLocks:
    def test_a_held_lock_is_refused_until_it_is_given_back(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        held = durable.take_lock(path)
        assert held is not None
        assert durable.take_lock(path) is None
        held.close()
        again = durable.take_lock(path)
        assert again is not None
        again.close()

    def test_a_killed_process_leaves_no_lock(self, tmp_path: Path) -> None:
        path = tmp_path / "lock"
        program = (
            "import sys, pathlib; from slm_vllm.durable import take_lock; "
            "held = take_lock(pathlib.Path(sys.argv[1])); print(held is not None, flush=True); "
            "sys.stdin.read()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "True\n"
            refused = durable.take_lock(path) is None
            holder.kill()
        assert refused
        held = durable.take_lock(path)
        assert held is not None
        held.close()

    def test_who_sleeps_is_woken_and_no_file_is_left(self, tmp_path: Path) -> None:
        path, waits, order = tmp_path / "lock", threading.Event(), []

        def second() -> None:
            with durable.locked(path, waits.set):
                order.append("second")

        thread = threading.Thread(target=second)
        with durable.locked(path, pytest.fail):
            thread.start()
            assert waits.wait(60)
            order.append("first")
        thread.join()
        assert order == ["first", "second"]
        assert names(tmp_path) == []

    def test_who_polls_is_asked_each_time_and_may_give_up(self, tmp_path: Path) -> None:
        path, asked = tmp_path / "lock", []

        def waiting() -> None:
            asked.append(1)
            if len(asked) == 3:
                raise InterruptedError

        with durable.locked(path, pytest.fail):
            with pytest.raises(InterruptedError), durable.locked(path, waiting, every=0):
                pytest.fail("two hold it")
            assert durable.take_lock(path) is None
        assert len(asked) == 3


class TestHashes:
    def test_a_whole_file(self, tmp_path: Path) -> None:
        content = bytes(range(256)) * 5000
        path = tmp_path / "file"
        path.write_bytes(content)
        assert durable.sha256_of(path) == hashlib.sha256(content).hexdigest()
        assert b"".join(durable.blocks(path, 10, 1_200_000)) == content[10:1_200_010]

    @pytest.mark.parametrize(
        ("n", "size", "expected"),
        [
            (1, 4, ["0123"]),
            (2, 4, ["0123", "6789"]),
            (3, 4, ["0123", "3456", "6789"]),
            (2, 20, ["0123456789", "0123456789"]),
        ],
    )
    def test_samples_reach_from_the_first_byte_to_the_last(
        self, tmp_path: Path, n: int, size: int, expected: list[str]
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"0123456789")
        assert [block.decode() for block in durable.samples(path, n, size)] == expected

    # They name models and seal indexes on the disks of users.
    @pytest.mark.parametrize(
        ("size", "content", "model", "seal"),
        [
            (0, "452a8c327a26a971", "452a8c327a26a971", "cae66941d9efbd404e4d88758ea67670"),
            (69632, "b4e30b35c4b04e62", "23ee7b8160b72177", "21c4ba92154aeb472135fc786a0cdaa5"),
            (69633, "8f3d9d7033af99ef", "24cbc0c9c34d3998", "6178b25b4b7a3ecf7d04cbb568ddf82b"),
            (131073, "b88aa6949d4535fc", "bfc237725eaac363", "8cac678009db4da04db3df6f51071c42"),
            (3000001, "72851ae532ed8515", "038370099119baed", "35a8985b67a2c7b6426e4a5c8ab2670b"),
        ],
    )
    def test_what_stands_in_fingerprints_stays(
        self, tmp_path: Path, size: int, content: str, model: str, seal: str
    ) -> None:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "llama"}')
        (folder / "model.safetensors").write_bytes(hashlib.shake_128(b"weights").digest(size))
        assert content_hash(folder) == f"content-{content}"
        assert model_identity(folder) == model
        write_seal(folder, {})
        assert read_seal(folder)["files"]["model.safetensors"] == {"size": size, "sample": seal}
