"""The checks of `clearml check`, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from slm_vllm.errors import SlmVllmError
from slm_vllm.extras import install_advice
from slm_vllm.finding import Finding, Status
from slm_vllm.tracking.clearml.sdk_process import ask
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
    request = {"project": project, "output_uri": output_uri}
    answers = ask("check", request, settings.environment, bound)
    found = [Finding(*finding) for finding in answers.found]
    if answers.timed_out:
        found.append(Finding("answer", "fail", f"none within {bound:.0f} s"))
    return findings + (found or [Finding("answer", "fail", answers.problem or "none")])


def try_all(
    request: dict[str, Any],
) -> Iterator[tuple[str, Status, str] | tuple[str, Status, str, str]]:
    """What the process does: the fields of a finding for each thing it tried."""
    from slm_vllm.tracking.clearml.api import ClearMLApi
    from slm_vllm.tracking.clearml.server import check_task
    from slm_vllm.tracking.clearml.storage import check_storage, output_place

    name, fix = "server and credentials", ""
    try:
        api = ClearMLApi()
        from clearml import __version__

        yield name, "ok", f"{api.host}, server {api.server_version}, API {api.api_version}"
        yield "versions", "ok", f"clearml {__version__}, API {api.api_version}"
        name = "task"
        yield name, "ok", f"{check_task(api, request['project'])} made and deleted"
        name = "artifacts"
        place = output_place(request["output_uri"], api.files_server)
        text = f"{place.url} ({place.named_by})"
        fix = f"The place is named by {place.named_by}."
        check_storage(place.url)
        text += ": stored, read back, deleted"
        if place.among_datasets:
            yield name, "warn", text, place.advice
        else:
            yield name, "ok", text
    except SlmVllmError as error:
        yield name, "fail", str(error), fix
    except Exception as error:  # whatever the SDK lets through
        text = " ".join(str(error).split())[:300]
        yield name, "fail", f"{type(error).__name__}: {text}", fix
