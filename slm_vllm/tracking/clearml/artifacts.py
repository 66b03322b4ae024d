"""A run's files in the artifact bucket of ClearML, compared with its folder."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from slm_vllm.errors import StorageError
from slm_vllm.storage.bucket import Bucket, RemoteObject
from slm_vllm.storage.checksums import compare
from slm_vllm.storage.settings import load_s3_settings
from slm_vllm.tracking.clearml.storage import bucket_of
from slm_vllm.tracking.cursor import cursor_path, read_cursor

_TASK = r"(?:^|/){name}\.(?P<task>[0-9a-f]{{32}})/"


@dataclass(frozen=True, slots=True)
class ArtifactState:
    """One object of a task.

    Attributes:
        remote: The object.
        local: The file of that name in the run folder, or None.
        same: Whether the two hold the same bytes; None without a local file.
        compared: By what that was told, such as "MD5".
    """

    remote: RemoteObject
    local: Path | None
    same: bool | None
    compared: str | None

    def to_json(self) -> dict[str, Any]:
        """Gives the state as plain values."""
        local = str(self.local) if self.local else None
        return {
            **self.remote.to_json(),
            "local": local,
            "same": self.same,
            "compared": self.compared,
        }


@dataclass(frozen=True, slots=True)
class TaskArtifacts:
    """The newest task of a run's name.

    Attributes:
        task: ClearML's id.
        earlier: Ids of other tasks of that name.
        artifacts: Its objects, in order of key.
    """

    task: str
    earlier: tuple[str, ...]
    artifacts: tuple[ArtifactState, ...]


def artifacts_bucket(folder: Path, env_file: Path | None = None) -> str | None:
    """The bucket a run's artifacts were stored in, else the one that they would be stored in.

    Args:
        folder: The run folder.
        env_file: Instead of `.env`.
    """
    cursor = read_cursor(cursor_path(folder, "clearml"))
    stored = (cursor.memory.get("artifacts") or {}).values() if cursor else ()
    for artifact in stored:
        if str(artifact.get("uri")).startswith("s3://"):
            return bucket_of(artifact["uri"])
    return load_s3_settings(env_file=env_file).artifacts_bucket


def find_artifacts(bucket: Bucket, folder: Path, prefix: str = "") -> TaskArtifacts:
    """Finds the objects of the newest task that bears the name of a run folder.

    ClearML writes to `<project>/<task>.<id>/artifacts/<name>/<file>`.

    Raises:
        StorageError: There are none.
    """
    name = folder.resolve().name
    tasks = _by_task(bucket.objects(prefix), name)
    if not tasks:
        raise StorageError(
            f"{bucket.url(prefix)} holds nothing of a task named '{name}'. Publish it with: "
            f"slm-vllm clearml sync {folder}; or name the bucket of the artifacts with --bucket"
        )
    newest = max(tasks, key=lambda task: max(item.last_modified for item in tasks[task]))
    files = {path.name: path for path in sorted(folder.rglob("*")) if path.is_file()}
    files |= {path.name: path for path in folder.glob("*") if path.is_file()}
    states = (_state(bucket, item.key, files) for item in tasks[newest])
    earlier = tuple(sorted(set(tasks) - {newest}))
    return TaskArtifacts(newest, earlier, tuple(states))


def _by_task(objects: Iterable[RemoteObject], name: str) -> dict[str, list[RemoteObject]]:
    pattern = re.compile(_TASK.format(name=re.escape(name)))
    tasks: dict[str, list[RemoteObject]] = {}
    for item in objects:
        found = pattern.search(item.key) or pattern.search(unquote(item.key))
        if found:
            tasks.setdefault(found["task"], []).append(item)
    return tasks


def _state(bucket: Bucket, key: str, files: dict[str, Path]) -> ArtifactState:
    remote = bucket.get(key)
    local = files.get(unquote(key.rpartition("/")[2]))
    if local is None:
        return ArtifactState(remote, None, None, None)
    same, compared = compare(local, remote, bucket)
    return ArtifactState(remote, local, same, compared)
