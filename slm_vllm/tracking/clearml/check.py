"""Tries everything a run will need of ClearML, one thing after the other."""

from __future__ import annotations

import json
import subprocess
import sys

from slm_vllm.errors import SlmVllmError
from slm_vllm.extras import install_advice
from slm_vllm.finding import Finding, Status
from slm_vllm.tracking.clearml.settings import clearml_installed, find_clearml

BOUND_SECONDS = 60.0


def check_clearml(
    project: str, output_uri: str | None, bound: float = BOUND_SECONDS
) -> list[Finding]:
    """Tries configuration, login, a task and an artifact, until one fails.

    The SDK runs in a process of its own, which is killed when it hangs.

    Args:
        project: Where the task is made.
        output_uri: `tracking.output_uri`, if it is set.
        bound: Longest wait for all of it, in seconds.
    """
    settings = find_clearml()
    if settings.source is None:
        detail = settings.problem or (
            "nothing names a server: neither CLEARML_CONFIG_FILE, CLEARML_API_ACCESS_KEY and "
            "CLEARML_API_SECRET_KEY, .env nor ~/clearml.conf"
        )
        return [Finding("configuration", "fail", detail)]
    findings = [Finding("configuration", "ok", settings.source)]
    if not clearml_installed():
        fix = install_advice("clearml", "clearml")
        return [*findings, Finding("package", "fail", "not installed", fix)]
    command = [sys.executable, "-m", "slm_vllm.tracking.clearml.check", project, output_uri or ""]
    said = ""
    try:
        done = subprocess.run(
            command,
            env=dict(settings.environment),
            capture_output=True,
            text=True,
            timeout=bound,
            check=False,
        )
        output, said = done.stdout, (done.stderr.strip().splitlines() or [""])[-1][:300]
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        output += json.dumps(["answer", "fail", f"none within {bound:.0f} s"]) + "\n"
    found = [Finding(*json.loads(line)) for line in output.splitlines() if line.startswith("[")]
    return findings + (found or [Finding("answer", "fail", said or "none")])


def _try_all(project: str, output_uri: str | None) -> None:
    """What the process does; each finding is a line of JSON."""
    from slm_vllm.tracking.clearml.api import ClearMLApi
    from slm_vllm.tracking.clearml.server import check_task
    from slm_vllm.tracking.clearml.storage import check_storage, output_place

    name = "server and credentials"
    try:
        api = ClearMLApi()
        from clearml import __version__

        _say(name, "ok", f"{api.host}, server {api.server_version}, API {api.api_version}")
        _say("versions", "ok", f"clearml {__version__}, API {api.api_version}")
        name = "task"
        _say(name, "ok", f"{check_task(api, project)} made and deleted")
        name = "artifacts"
        place = output_place(output_uri, api.files_server)
        check_storage(place)
        _say(name, "ok", f"{place}: stored, read back, deleted")
    except SlmVllmError as error:
        _say(name, "fail", str(error))
    except Exception as error:  # whatever the SDK lets through
        said = " ".join(str(error).split())[:300]
        _say(name, "fail", f"{type(error).__name__}: {said}")


def _say(name: str, status: Status, found: str) -> None:
    print(json.dumps([name, status, found]), flush=True)


if __name__ == "__main__":
    _try_all(sys.argv[1], sys.argv[2] or None)
