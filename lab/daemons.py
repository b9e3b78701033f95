"""Daemons that end with their owner: a directory, and the processes that write to it.

    with Daemons() as daemons:
        daemons.start("etcd", ["etcd", "--data-dir", str(daemons.root / "etcd")])

What is left behind, even by a process that was killed, is ended and removed by `daemon_keeper`.
"""

import json
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from lab.compute_node import LabError, has_ended
from lab.opening import Opening

# Below what Linux gives to outgoing connections: a port stays free while its daemon is away for a moment.
_PORTS = range(20000, 32000)


class Daemons(Opening):
    """Processes with names, and a directory for their files and logs."""

    def __init__(self) -> None:
        """Make the directory; nothing runs yet."""
        self.root = Path(tempfile.mkdtemp(prefix="bk-"))
        self._turn = threading.Lock()
        self._pids: dict[str, int] = {}
        self._keeper: subprocess.Popen[str] | None = None

    def _open(self) -> None:
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__).with_name("daemon_keeper.py")), str(self.root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C is for the owner, who then closes everything in order
        )

    def close(self) -> None:
        """End every daemon and remove the directory; once more does no harm."""
        if self._keeper is not None:
            self._keeper.communicate()
            self._keeper = None
            self._pids.clear()
        shutil.rmtree(self.root, ignore_errors=True)

    def start(self, name: str, command: list[str]) -> int:
        """Start a daemon, whose output goes to `log(name)`, and return its process id."""
        if self.runs(name):
            raise LabError(f"{name} is running already")
        answer = self._tell({"start": name, "command": command, "log": str(self._log_file(name))})
        if not answer.isdigit():
            raise LabError(answer)
        self._pids[name] = int(answer)
        return self._pids[name]

    def stop(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """Send a daemon a signal that ends it, and wait until it has ended."""
        self.pid(name)
        self._tell({"stop": name, "signal": how})
        del self._pids[name]

    def runs(self, name: str) -> bool:
        """Say whether a daemon was started and has not ended since, be it by itself."""
        return name in self._pids and not has_ended(self._pids[name])

    def pid(self, name: str) -> int:
        """Return the process id of a daemon that was started and not stopped since."""
        if name not in self._pids:
            raise LabError(f"{name} was not started")
        return self._pids[name]

    def log(self, name: str, lines: int = 20) -> str:
        """Return the end of what a daemon has said."""
        return "\n".join(self._log_file(name).read_text(errors="replace").splitlines()[-lines:])

    def _log_file(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def _tell(self, order: dict[str, object]) -> str:
        if self._keeper is None:
            raise LabError("no daemon can be started or stopped outside the context")
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        with self._turn:
            self._keeper.stdin.write(json.dumps(order) + "\n")
            if not (answer := self._keeper.stdout.readline()):
                raise LabError(f"the keeper of {self.root} ended, with status {self._keeper.wait()}")
        return answer.strip()


def free_ports(count: int) -> list[int]:
    """Find ports on loopback that nobody uses, each another one."""
    ports: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as attempt:
            try:
                attempt.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise LabError("too few ports are free on loopback")
