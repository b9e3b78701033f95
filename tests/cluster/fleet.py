"""A cloud in small: the manifests of deploy/ in a real API server, the controller and agents as processes.

Each agent has an instances tree of its own and a token that is bound to a pod on its node, as a DaemonSet's has. There
is no kubelet: pods and nodes are objects, and the processes run beside them.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from lab.compute_node import LabError
from lab.control_plane import ApiError, ControlPlane
from lab.daemons import free_ports
from lab.nova_tree import NovaTree

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
NAMESPACE = "basekeeper"
TIMEOUT = 60.0
LABELS = {"app.kubernetes.io/name": "basekeeper", "app.kubernetes.io/component": "agent"}
POLICIES = "/apis/basekeeper.io/v1alpha1/imagecachepolicies"
CACHES = "/apis/basekeeper.io/v1alpha1/nodeimagecaches"
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
Object = dict[str, Any]


def install(cluster: ControlPlane) -> None:
    """Apply what a cluster administrator applies, in one command as the README has it, and wait until it works."""
    parts = [word for part in ("crds", "rbac", "admission") for word in ("-f", str(DEPLOY / part))]
    cluster.kubectl("apply", "--server-side", *parts)
    for name in ("imagecachepolicies", "nodeimagecaches"):
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{name}.basekeeper.io")
    eventually(lambda: _serves(cluster), "the API server serves the custom resources")


def _serves(cluster: ControlPlane) -> bool:
    try:
        cluster.api("GET", POLICIES)
        cluster.api("GET", CACHES)
    except ApiError:
        return False
    return True


@contextmanager
def started() -> Iterator[ControlPlane]:
    """A control plane while the context is open; it fails, never skips, where none can run."""
    with ExitStack() as stack:
        try:
            cluster = stack.enter_context(ControlPlane())
        except LabError as error:
            pytest.fail(f"no control plane can run here: {error}", pytrace=False)
        yield cluster


def eventually(check: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
    """Wait until `check` gives something true, and give that back."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            if found := check():
                return found
            last: object = found
        except (KeyError, IndexError, ApiError, OSError, StopIteration) as error:
            last = repr(error)
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}; last: {last}"
        time.sleep(0.1)


@dataclass
class Program:
    """A basekeeper program that runs."""

    name: str
    command: list[str]
    log: Path
    port: int
    under: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again."""
        environment = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "NODE_NAME")}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self.under, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # what runs under strace ends with it
                env={**environment, **self.environment, "PYTHONPATH": str(ROOT / "operator")},
            )

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it, and say with which status it ended."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End it, and what runs under it, at once."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def said(self) -> str:
        """Its log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def ask(self, path: str) -> tuple[int, str]:
        """Status and text of one of its own pages."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


class Fleet:
    """The controller, the agents and their nodes; all of it is gone when the context is left."""

    def __init__(self, cluster: ControlPlane, directory: Path) -> None:
        self.cluster = cluster
        self._directory = directory
        self.trees: dict[str, NovaTree] = {}
        self.programs: dict[str, Program] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.clear()
        return self

    def __exit__(
        self, error: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for program in self.programs.values():
            program.kill()
        for program in self.programs.values():
            sys.stderr.write(f"--- {program.name}\n{program.said[-4000:]}\n")  # pytest shows it where a test failed
        self.cluster.heal()
        self.clear()
        self._stack.close()

    def clear(self) -> None:
        """Leave no policy, node, pod, event or object of a node behind."""
        for path in (POLICIES, CACHES, "/api/v1/nodes", f"/api/v1/namespaces/{NAMESPACE}/pods",
                     "/api/v1/namespaces/default/events"):  # fmt: skip
            try:
                self.cluster.api("DELETE", path, {"gracePeriodSeconds": 0})
            except ApiError as error:
                if error.status != 404:
                    raise

    # --- programs ----------------------------------------------------------------------------------------------

    def start_controller(self, *options: str, name: str = "controller", server: str | None = None,
                         ca: Path | None = None, port: int | None = None) -> Program:  # fmt: skip
        """Start a controller under its own service account."""
        token = self.cluster.token("basekeeper-controller", NAMESPACE)
        words = ("controller", "--namespace", NAMESPACE)
        return self._start(name, token, *words, *options, server=server, ca=ca, port=port)

    def add_node(
        self, name: str, labels: Mapping[str, str] | None = None, *, ready: bool = True, port: int | None = None
    ) -> None:
        """Make a node with an agent's pod on it; with a `port`, Prometheus finds the agent that will listen there."""
        self.cluster.add_node(name, dict(labels or {}), ready=ready)
        account = "basekeeper-agent"
        self.cluster.add_pod(f"agent-{name}", NAMESPACE, node=name, labels=LABELS, service_account=account, port=port)

    def token(self, node: str) -> str:
        """The token of a node's agent."""
        return self.cluster.token("basekeeper-agent", NAMESPACE, pod=f"agent-{node}")

    def tree(self, node: str) -> NovaTree:
        """A node's instances directory."""
        if node not in self.trees:
            self.trees[node] = NovaTree(self._directory / node / "instances")
        return self.trees[node]

    def start_agent(self, node: str, *options: str, server: str | None = None, ca: Path | None = None,
                    under: tuple[str, ...] = (), port: int | None = None) -> Program:  # fmt: skip
        """Start a node's agent; the node is there already."""
        where = ("--instances-path", str(self.tree(node).instances_path), "--state-dir", str(self.state(node)))
        return self._start(
            f"agent-{node}", self.token(node), "agent", *where, "--libvirt", "none", "--spawn-grace", "0s",
            "--start-jitter", "0s", *options, server=server, ca=ca, under=under, port=port,
            environment={"NODE_NAME": node},
        )  # fmt: skip

    def state(self, node: str) -> Path:
        """Where a node's ledger is."""
        return self._directory / node / "state"

    def _start(self, name: str, token: str, *words: str, server: str | None, ca: Path | None,
               under: tuple[str, ...] = (), environment: Mapping[str, str] | None = None,
               port: int | None = None) -> Program:  # fmt: skip
        kubeconfig = self.cluster.kubeconfig(token, name, server=server, ca=ca)
        port = port or free_ports(1)[0]
        options = ("--kubeconfig", str(kubeconfig), "--listen", f"127.0.0.1:{port}")
        command = [sys.executable, "-m", "basekeeper", *words, *options]
        log = self._directory / f"{name}.log"
        program = Program(name, command, log, port, under, environment or {})
        program.start()
        self.programs[name] = program
        return program

    # --- objects -----------------------------------------------------------------------------------------------

    def apply(self, name: str, **spec: Any) -> Object:
        """Apply a policy of this name, as kubectl does, and give it back."""
        manifest = {
            "apiVersion": "basekeeper.io/v1alpha1",
            "kind": "ImageCachePolicy",
            "metadata": {"name": name},
            "spec": {"interval": "1m", "limits": {"maxPercent": 100}, "rollout": {"maxNodesPerInterval": "100%"}}
            | spec,
        }
        path = f"{POLICIES}/{name}?fieldManager=test&force=true"
        return dict(self.cluster.api("PATCH", path, manifest, content_type=_APPLY))

    def delete(self, path: str) -> None:
        """Delete an object."""
        self.cluster.api("DELETE", path)

    def policy(self, name: str) -> Object:
        """A policy as the server has it."""
        return dict(self.cluster.api("GET", f"{POLICIES}/{name}"))

    def cache(self, node: str) -> Object:
        """A node's object as the server has it."""
        return dict(self.cluster.api("GET", f"{CACHES}/{node}"))

    def caches(self) -> dict[str, Object]:
        """All nodes' objects."""
        return {item["metadata"]["name"]: item for item in self.cluster.api("GET", CACHES)["items"]}

    def run_now(self, node: str, value: str) -> None:
        """Ask for a pass, as a person does."""
        patch = {"metadata": {"annotations": {"basekeeper.io/run-now": value}}}
        self.cluster.api("PATCH", f"{CACHES}/{node}", patch, content_type=_MERGE)

    def say(self, node: str, **status: Any) -> None:
        """Write a node's status as its agent would; for nodes whose agent is a stub."""
        self.cluster.api("PATCH", f"{CACHES}/{node}/status", {"status": status}, content_type=_MERGE)

    def label(self, node: str, **labels: str | None) -> None:
        """Change labels of a Node."""
        patch = {"metadata": {"labels": labels}}
        self.cluster.api("PATCH", f"/api/v1/nodes/{node}", patch, content_type=_MERGE)

    def events(self, node: str) -> list[Object]:
        """The events about a Node."""
        found = self.cluster.api("GET", "/api/v1/namespaces/default/events")["items"]
        return [item for item in found if item["involvedObject"]["name"] == node]


def condition(found: Object, kind: str) -> Object:
    """One condition of an object."""
    return next(item for item in found["status"]["conditions"] if item["type"] == kind)


def is_condition(found: Object, kind: str, status: str, reason: str | None = None) -> bool:
    """Whether a condition is so."""
    said = condition(found, kind)
    return said["status"] == status and reason in (None, said["reason"])


def shown(found: Object) -> str:
    """An object as people read it."""
    return json.dumps(found, indent=1)
