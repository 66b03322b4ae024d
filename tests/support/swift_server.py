"""OpenStack Swift with its S3 face, as Debian packages it, all of it in one folder.

    apt-get install --no-install-recommends \
        swift-proxy swift-account swift-container swift-object memcached
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.servers import free_port

PROGRAMS = (
    *("swift-proxy-server", "swift-account-server", "swift-container-server"),
    *("swift-object-server", "swift-ring-builder", "memcached"),
)
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


def installed() -> bool:
    return all(shutil.which(program) for program in PROGRAMS)


@contextmanager
def serving_swift(folder: Path, max_parts: int = 1000) -> Iterator[str]:
    """Starts Swift with one disk below `folder`; gives the URL of its S3 face.

    Its region is one that no client guesses.
    """
    ports = {kind: free_port() for kind in ("proxy", "account", "container", "object", "cache")}
    _configure(folder, ports, max_parts)
    user = getpass.getuser()
    cache = ["memcached", "-l", "127.0.0.1", "-p", str(ports["cache"]), "-u", user]
    commands = {"cache": cache}
    for kind in ("account", "container", "object", "proxy"):
        commands[kind] = [f"swift-{kind}-server", str(folder / f"{kind}.conf")]
    started = []
    try:
        with (folder / "log").open("wb") as log:
            for command in commands.values():
                started.append(
                    subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
                )
        for kind, process in zip(commands, started, strict=True):
            _wait_for(ports[kind], process, folder / "log")
        yield f"http://127.0.0.1:{ports['proxy']}"
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _configure(folder: Path, ports: dict[str, int], max_parts: int) -> None:
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
        builder = str(folder / f"{kind}.builder")
        for words in (
            ["create", "4", "1", "0"],
            ["add", f"r1z1-127.0.0.1:{ports[kind]}/d1", "1"],
            ["rebalance"],
        ):
            command = ["swift-ring-builder", builder, *words]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    filters = "".join(f"[filter:{n}]\nuse = egg:swift#{egg}\n" for n, egg in _FILTERS.items())
    (folder / "proxy.conf").write_text(
        f"[DEFAULT]\n{common}bind_port = {ports['proxy']}\n"
        f"[pipeline:main]\npipeline = {_PIPELINE}\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n"
        f"[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = 127.0.0.1:{ports['cache']}\n"
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
