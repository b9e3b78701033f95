"""Runs inside a compute node's namespaces, starts its libvirtd, and ends everything when its owner is gone.

`compute_node` runs this file under unshare(1) and talks to it by lines: `start` and `stop` are answered with the
process id of libvirtd and `stopped`. When standard input ends, however the owner ended, every process of the
node is killed by its id and the node's directory is removed. The namespace of host names tells which processes
are the node's: libvirtd and every qemu inherit it, and nothing else on the machine has it.
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

STOP_TIMEOUT = 10.0


def main() -> None:
    """Make the node's private view of the machine, then obey until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--hostname", required=True)
    parser.add_argument("--bind", nargs=2, action="append", default=[], metavar=("SOURCE", "TARGET"))
    parser.add_argument("daemon", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    try:
        socket.sethostname(arguments.hostname)
        for source, target in arguments.bind:
            subprocess.run(["mount", "--bind", source, target], check=True)
        _obey(arguments.daemon, arguments.root / "libvirtd.log")
    finally:
        _end_everything()
        shutil.rmtree(arguments.root, ignore_errors=True)


def _obey(command: list[str], log: Path) -> None:
    daemon: subprocess.Popen[bytes] | None = None
    _answer("ready")
    for line in sys.stdin:
        match line.strip():
            case "start":
                with log.open("ab") as output:
                    daemon = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                    )
                _answer(str(daemon.pid))
            case "stop" if daemon is not None:
                _stop(daemon)
                daemon = None
                _answer("stopped")


def _answer(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.send_signal(signal.SIGCONT)  # a paused daemon would not hear the next one
    daemon.terminate()
    try:
        daemon.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _end_everything() -> None:
    """Kill until nobody is left: a process that is just being forked shows up in the next round."""
    while processes := list(_processes_of_this_node()):
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.02)


def _processes_of_this_node() -> Iterator[int]:
    ours = os.stat("/proc/self/ns/uts").st_ino
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            # The link of a zombie cannot be read: it has ended already and waits for its parent only.
            if os.stat(f"/proc/{entry}/ns/uts").st_ino == ours:
                yield int(entry)
        except OSError:
            continue


if __name__ == "__main__":
    main()
