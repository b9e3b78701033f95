"""A network that is a cluster's own: nothing outside it is reached from inside, and only its API server from outside.

    with Network() as network:
        subprocess.run([*network.enter, "ip", "address"])

What runs in it may listen where it likes. The API server listens on `port` there; the same port of this machine's
loopback leads to it, and so does the address that pods have for it. All is gone with the last process in it, so there
is nothing to clean up after a process that was killed.
"""

import socket
import subprocess
import sys
from pathlib import Path

from lab.compute_node import LabError
from lab.opening import Opening

BRIDGE = "basekeeper"
GATEWAY = "10.244.0.1"
POD_NETWORK = "10.244.0.0/16"
# The first address of the control plane's service network: what pods find in KUBERNETES_SERVICE_HOST.
SERVICE_ADDRESS = "10.96.0.1"


def node_address(number: int) -> str:
    """The address of a cluster's first, second, … node."""
    return f"10.244.0.{10 + number}"


def pod_range(number: int) -> tuple[str, str]:
    """The first and the last address that a node may give to its pods."""
    return f"10.244.{number}.1", f"10.244.{number}.254"


class Network(Opening):
    """A network namespace with a bridge for pods, there until the context is left."""

    def __init__(self) -> None:
        """Take a port of loopback; there is no network yet."""
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.port: int = self._listener.getsockname()[1]
        self._keeper: subprocess.Popen[str] | None = None

    def _open(self) -> None:
        keeper = [sys.executable, "-I", str(Path(__file__).with_name("network_keeper.py"))]
        # What listens is made out here and handed in: a socket stays in the network where it was made.
        self._keeper = subprocess.Popen(
            ["unshare", "--net", *keeper, str(self._listener.fileno()), str(self.port), SERVICE_ADDRESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=(self._listener.fileno(),),
            start_new_session=True,  # Ctrl-C is for the owner, who then closes everything in order
        )
        self._listener.close()
        self._hear()  # only then is it in a network of its own
        for command in (
            "link set lo up",
            f"address add {SERVICE_ADDRESS}/32 dev lo",
            f"link add {BRIDGE} type bridge",
            f"address add {GATEWAY}/16 dev {BRIDGE}",
            *(f"address add {node_address(number)}/16 dev {BRIDGE}" for number in range(1, 9)),
            f"link set {BRIDGE} up",
        ):
            self._configure(command)
        self._tell("serve")
        self._hear()

    def close(self) -> None:
        """End what leads into the network; once more does no harm."""
        self._listener.close()
        if self._keeper is not None:
            self._keeper.communicate()
            self._keeper = None

    @property
    def enter(self) -> tuple[str, ...]:
        """What to put before a command that shall run inside."""
        if self._keeper is None:
            raise LabError("the network is not open")
        return ("nsenter", f"--net=/proc/{self._keeper.pid}/ns/net", "--")

    def _configure(self, command: str) -> None:
        done = subprocess.run([*self.enter, "ip", *command.split()], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(f"ip {command}: {done.stderr.strip()}")

    def _tell(self, order: str) -> None:
        assert self._keeper is not None
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{order}\n")
        self._keeper.stdin.flush()

    def _hear(self) -> None:
        assert self._keeper is not None
        assert self._keeper.stdout is not None
        if not self._keeper.stdout.readline():
            _, complaint = self._keeper.communicate()
            raise LabError(f"no network of its own: {complaint.strip()}")
