"""Decides whether runs go to a ClearML server, an offline session, or nowhere."""

from __future__ import annotations

from slm_vllm.config.schema import TrackingConfig
from slm_vllm.errors import MissingExtraError, SlmVllmError
from slm_vllm.extras import install_advice
from slm_vllm.tracking.base import NOBODY, Publication
from slm_vllm.tracking.clearml.settings import ClearMLSettings, clearml_installed, find_clearml
from slm_vllm.tracking.clearml.storage import named_place

OUTPUT_URI_VARIABLE = "SLM_VLLM_OUTPUT_URI"
# Tells the publisher into which task the run goes; `CLEARML_TASK_ID` itself is kept from the SDK.
TASK_VARIABLE = "SLM_VLLM_CLEARML_TASK"


def arrange_clearml(config: TrackingConfig, *, asked: bool) -> Publication:
    """Looks at what is configured and installed.

    Args:
        config: The run's.
        asked: Whether ClearML was named; else it is used where it can be.

    Raises:
        MissingExtraError: It was named and its package is missing.
    """
    settings = find_clearml()
    if not clearml_installed():
        if asked:
            raise MissingExtraError("clearml", "clearml", "tracking.tracker=clearml")
        if settings.source is None:
            return NOBODY
        return Publication(
            None,
            note=f"ClearML is configured ({settings.source}) and its package is not installed: "
            f"the run is not published. {install_advice('clearml', 'clearml')}",
        )
    if settings.source is not None:
        return on_server(settings, config, config.close_timeout, _notice(config))
    why = f"ClearML is not configured{f' ({settings.problem})' if settings.problem else ''}"
    if not config.offline:
        return Publication(None, note=f"{why}: the run is not published")
    return Publication(
        "clearml_offline",
        _environment(settings, config),
        config.close_timeout,
        f"{why}: the run is kept as an offline session (docs/clearml.md)",
    )


def on_server(
    settings: ClearMLSettings, config: TrackingConfig, bound: float, note: str = ""
) -> Publication:
    """Publishing to the server that is configured."""
    return Publication("clearml", _environment(settings, config), bound, note)


def _notice(config: TrackingConfig) -> str:
    """What the user should know of where artifacts go."""
    try:
        place = named_place(config.output_uri)
    except SlmVllmError:
        return ""  # the publisher says so, and the run goes on
    if place is None or not place.among_datasets:
        return ""
    return f"ClearML: artifacts go to {place.url} ({place.named_by}). {place.advice}"


def _environment(settings: ClearMLSettings, config: TrackingConfig) -> dict[str, str]:
    environment = dict(settings.environment)
    if config.output_uri is not None:
        environment[OUTPUT_URI_VARIABLE] = config.output_uri
    return environment
