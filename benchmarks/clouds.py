"""A cluster for benchmarks: an API server, etcd, real agents, and a controller that told them what to do.

The controller ends once every node has been told: what is measured afterwards is not disturbed by it.
"""

import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

from lab.control_plane import ControlPlane
from tests.cluster.fleet import Fleet, Program, eventually, install

_PASS = b" pass outcome="
_POLL = 0.005
_PASS_TAKES = 120.0
"""Seconds after which a pass that was asked for and did not end is a failure of the benchmark."""


@contextlib.contextmanager
def cloud() -> Iterator[Fleet]:
    """An empty fleet; what its programs said is shown only where something failed."""
    said = io.StringIO()
    try:
        with (
            contextlib.redirect_stderr(said),
            tempfile.TemporaryDirectory(prefix="basekeeper-bench-") as place,
            ControlPlane() as cluster,
        ):
            install(cluster)
            with Fleet(cluster, Path(place)) as fleet:
                yield fleet
    except BaseException:
        sys.stderr.write(said.getvalue())
        raise


def tell(fleet: Fleet, nodes: Sequence[str]) -> None:
    """Let a policy like a production's reach these nodes; they remove, and look at their disk between passes."""
    for node in nodes:
        fleet.add_node(node)
    controller = fleet.start_controller()
    pressure = {"highPercent": 99, "lowPercent": 98}
    fleet.apply("bench", mode="Enforce", interval="40m", pressure=pressure)

    def enforcing() -> bool:
        caches = fleet.caches()
        return all(caches[node]["spec"]["mode"] == "Enforce" for node in nodes)

    eventually(enforcing, "every node is told")
    controller.stop()


class Passes:
    """The passes of one agent, counted by its log; a pass is asked for as a person does."""

    def __init__(self, fleet: Fleet, node: str, agent: Program) -> None:
        self._fleet = fleet
        self._node = node
        self._agent = agent
        self._read = 0
        self.count = 0

    def look(self) -> int:
        """How many passes there were so far."""
        with self._agent.log.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        self.count += sum(_PASS in line for line in whole.splitlines())
        return self.count

    def make(self) -> None:
        """Ask for one, and wait until it has ended. Raises TimeoutError."""
        before = self.look()
        self._fleet.run_now(self._node, f"{before}-{time.time()}")
        deadline = time.monotonic() + _PASS_TAKES
        while self.look() == before:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._node}: no pass within {_PASS_TAKES:.0f} s: {self._agent.said[-2000:]}")
            time.sleep(_POLL)


def ready(agent: Program) -> bool:
    """Whether an agent says that it is ready; one that does not listen yet does not."""
    try:
        return agent.ask("/readyz")[0] == HTTPStatus.OK
    except OSError:
        return False
