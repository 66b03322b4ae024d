"""OpenStack Swift with its S3 face, all of it in one folder."""

from __future__ import annotations

import getpass
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.places import server_python
from support.servers import free_port

RELEASES = ("swift-2.30", "swift-2.38")
"""As `scripts/test_servers.sh` names them."""

ACCESS, SECRET, REGION = "test:tester", "testing", "garage"

_PIPELINE = (
    "catch_errors gatekeeper proxy-logging cache listing_formats s3api tempauth copy "
    "container-quotas account-quotas slo dlo versioned_writes symlink proxy-logging proxy-server"
)
_FILTERS = {
    "catch_errors": "catch_errors",
    "gatekeeper": "gatekeeper",
    "proxy-logging": "proxy_logging",
    "listing_formats": "listing_formats",
    "copy": "copy",
    "container-quotas": "container_quotas",
    "account-quotas": "account_quotas",
    "slo": "slo",
    "dlo": "dlo",
    "versioned_writes": "versioned_writes",
    "symlink": "symlink",
}


@contextmanager
def serving_swift(release: str, folder: Path, max_parts: int = 1000) -> Iterator[str]:
    """Starts Swift with one disk below `folder`; gives the URL of its S3 face.

    Its region is one that no client guesses.
    """
    python = server_python(release)
    ports = {kind: free_port() for kind in ("account", "container", "object", "proxy")}
    _configure(python, folder, ports, max_parts)
    started = []
    try:
        with (folder / "log").open("wb") as log:
            for kind in ports:
                words = [python, python.with_name(f"swift-{kind}-server"), folder / f"{kind}.conf"]
                started.append(
                    subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
                )
        for port, process in zip(ports.values(), started, strict=True):
            _wait_for(port, process, folder / "log")
        yield f"http://127.0.0.1:{ports['proxy']}"
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _configure(python: Path, folder: Path, ports: dict[str, int], max_parts: int) -> None:
    (folder / "srv" / "d1").mkdir(parents=True)
    (folder / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = a\nswift_hash_path_prefix = b\n"
        "[storage-policy:0]\nname = p\ndefault = yes\n"
    )
    common = f"bind_ip = 127.0.0.1\nswift_dir = {folder}\nuser = {getpass.getuser()}\nworkers = 0\n"
    for kind in ("account", "container", "object"):
        (folder / f"{kind}.conf").write_text(
            f"[DEFAULT]\n{common}bind_port = {ports[kind]}\ndevices = {folder}/srv\n"
            f"mount_check = false\n[pipeline:main]\npipeline = {kind}-server\n"
            f"[app:{kind}-server]\nuse = egg:swift#{kind}\n"
        )
        builder = [python, python.with_name("swift-ring-builder"), folder / f"{kind}.builder"]
        for words in (
            ["create", "4", "1", "0"],
            ["add", f"r1z1-127.0.0.1:{ports[kind]}/d1", "1"],
            ["rebalance"],
        ):
            subprocess.run([*builder, *words], check=True, stdout=subprocess.DEVNULL)
    filters = "".join(f"[filter:{n}]\nuse = egg:swift#{egg}\n" for n, egg in _FILTERS.items())
    (folder / "proxy.conf").write_text(
        f"[DEFAULT]\n{common}bind_port = {ports['proxy']}\n"
        f"[pipeline:main]\npipeline = {_PIPELINE}\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        # Nobody listens there: the older release wants the filter, not what is behind it.
        "[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:9\n"
        "[filter:tempauth]\nuse = egg:swift#tempauth\nuser_test_tester = testing .admin\n"
        f"[filter:s3api]\nuse = egg:swift#s3api\nlocation = {REGION}\n"
        f"max_upload_part_num = {max_parts}\n{filters}"
    )


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    raise RuntimeError(f"{process.args} did not start: {log.read_text(errors='replace')[-3000:]}")
