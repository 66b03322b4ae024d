"""Proxies of the environment; addresses of this machine bypass them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import MutableMapping
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


def _proxy_variables(environment: MutableMapping[str, str]) -> list[str]:
    """The variables that name a proxy."""
    names = [name for lower in _VARIABLES for name in (lower, lower.upper())]
    return [name for name in names if environment.get(name)]


def ask_loopback_directly(environment: MutableMapping[str, str]) -> None:
    """Adds this machine to NO_PROXY where a proxy is named: none of them reaches it."""
    if not _proxy_variables(environment):
        return
    # HTTP clients read the one or the other, most the lower-case one first.
    excepted = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in excepted.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in _LOOPBACK if host not in hosts]
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(hosts)


def goes_direct(url: str) -> bool:
    """Whether an address is of this machine, which no proxy can reach."""
    host = (urlsplit(url).hostname or "").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def proxy_advice(url: str) -> str:
    """What to do where an address may be out of reach because a proxy is asked; else nothing."""
    parts = urlsplit(url)
    if goes_direct(url) or proxy_bypass_environment(parts.netloc):
        return ""
    for name in _proxy_variables(os.environ):
        if name.lower() in (f"{parts.scheme}_proxy", "all_proxy"):
            return (
                f"It is asked through the proxy that {name} names; NO_PROXY={parts.hostname} asks "
                "it directly"
            )
    return ""
