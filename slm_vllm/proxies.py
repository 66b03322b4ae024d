"""Proxies of the environment: what runs on this machine is asked past them."""

from __future__ import annotations

from collections.abc import MutableMapping

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_VARIABLES = ("http_proxy", "https_proxy", "all_proxy")


def proxy_variables(environment: MutableMapping[str, str]) -> list[str]:
    """The variables that name a proxy."""
    names = [name for lower in _VARIABLES for name in (lower, lower.upper())]
    return [name for name in names if environment.get(name)]


def ask_loopback_directly(environment: MutableMapping[str, str]) -> None:
    """Adds this machine to NO_PROXY where a proxy is named: none of them reaches it."""
    if not proxy_variables(environment):
        return
    # HTTP clients read the one or the other, most the lower-case one first.
    excepted = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    hosts = [host.strip() for host in excepted.split(",") if host.strip()]
    if "*" not in hosts:
        hosts += [host for host in _LOOPBACK if host not in hosts]
    environment["no_proxy"] = environment["NO_PROXY"] = ",".join(hosts)
