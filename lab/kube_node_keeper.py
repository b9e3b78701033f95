"""Runs a node's containerd and kubelet in namespaces of its own, and leaves nothing of it when its owner is gone.

`kube_node` starts this file twice. Outside it holds the node's registration (see `kube_node.clean_up`), makes the
cgroups, starts the inside, and when standard input ends, however the owner ended, it kills the inside and removes
cgroups and directory. Inside it is the first process of a namespace of processes and the only one to see the node's
mounts: with it the kernel ends every pod, and drops every mount.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

START_TIMEOUT = 30.0
END_TIMEOUT = 10.0


def main() -> None:
    """Be one of the two."""
    node = json.loads(Path(sys.argv[2]).read_text())
    {"outside": _outside, "inside": _inside}[sys.argv[1]](node)


# --- outside -----------------------------------------------------------------------------------------------------


def _outside(node: dict[str, Any]) -> None:
    registration = Path(node["registration"])
    with registration.open("r") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        inside: subprocess.Popen[bytes] | None = None
        try:
            for cgroup in node["cgroups"]:
                _make_cgroup(Path(cgroup))
            inside = subprocess.Popen(
                [*node["enter"], sys.executable, "-I", __file__, "inside", sys.argv[2]], stdin=subprocess.PIPE
            )
            # Every other word of the owner is the end.
            sys.stdin.read()
        finally:
            if inside is not None:
                inside.kill()
                inside.wait()
            remove(node)


def remove(node: dict[str, Any]) -> None:
    """Remove what a node that has ended leaves: cgroups with whoever still sits in them, files, the registration."""
    for cgroup in node["cgroups"]:
        _remove_cgroup(Path(cgroup))
    shutil.rmtree(node["root"], ignore_errors=True)
    Path(node["registration"]).unlink(missing_ok=True)


def _make_cgroup(cgroup: Path) -> None:
    # In the second version a kind of limit is there for those below only when it is passed on.
    if (controllers := cgroup.parent / "cgroup.controllers").exists():
        there = set(controllers.read_text().split())
        for name in there & {"cpu", "cpuset", "memory", "pids"}:
            try:
                (cgroup.parent / "cgroup.subtree_control").write_text(f"+{name}")
            except OSError as error:
                sys.exit(f"{cgroup.parent} does not pass on its controller {name}: {error.strerror}")
    cgroup.mkdir(exist_ok=True)
    # In the first version a new group of processors is empty, and takes no process before it has some.
    for name in ("cpuset.cpus", "cpuset.mems"):
        if "cpuset" in cgroup.parts and (cgroup.parent / name).exists():
            (cgroup / name).write_text((cgroup.parent / name).read_text())


def _remove_cgroup(cgroup: Path) -> None:
    deadline = time.monotonic() + END_TIMEOUT
    while cgroup.exists() and time.monotonic() < deadline:
        for directory, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                for process in (Path(directory) / "cgroup.procs").read_text().split():
                    os.kill(int(process), signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        time.sleep(0.02)


# --- inside ------------------------------------------------------------------------------------------------------


def _inside(node: dict[str, Any]) -> None:
    for source, target in node["binds"]:
        Path(target).mkdir(parents=True, exist_ok=True)
        _mount("--bind", source, target)
    for source, target in node["files"]:
        _mount("--bind", source, target)
    # What is mounted later below a directory of the node shows in pods that ask for it (HostToContainer).
    _mount("--make-rshared", "/")
    runtime = _start(node, "containerd")
    _wait_for_socket(node["socket"], runtime)
    kubelet = _start(node, "kubelet")
    _answer("ready")
    while sys.stdin.read():
        pass
    kubelet.kill()


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _start(node: dict[str, Any], name: str) -> subprocess.Popen[bytes]:
    with open(node["logs"][name], "ab") as output:
        return subprocess.Popen(
            node["commands"][name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": node["path"]},
        )


def _wait_for_socket(path: str, daemon: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        with socket.socket(socket.AF_UNIX) as attempt:
            try:
                attempt.connect(path)
                return
            except OSError:
                if time.monotonic() > deadline or daemon.poll() is not None:
                    sys.exit("containerd does not serve")
        time.sleep(0.02)


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
