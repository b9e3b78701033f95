"""The controller, a real API server and etcd with 100, 1,000 and 5,000 nodes, whose agents are stubs.

Each size gets a control plane of its own. The controller is a real process under its own service account; the stubs
(stub_agents.py) hold a watch per node, with a token bound to a pod on it, and write statuses that the agent's own code
made. In turn: a controller that meets a cluster in which no node has an object; a steady window in which the nodes
make passes at the default interval and every pass has news, so that it is written; an edit of the policy that reaches
all nodes at once; nodes that fall silent; a controller that is stopped and started. All of it shares the cores of one
machine, so that seconds are those of a control plane with few of them.
"""

import contextlib
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

from basekeeper.cluster.kinds import NODE_CACHES, NODES, POLICIES
from basekeeper.controller import rollup, snapshots
from basekeeper.controller.desired import desired
from basekeeper.controller.rollout import STALE_AFTER
from basekeeper.controller.store import World
from benchmarks.cluster_programs import NAMESPACE, Controller, Etcd, Stubs, cpu, memory, until
from benchmarks.cluster_tables import tables, targets
from benchmarks.measuring import ROOT, Document, finish, parser, timed
from lab import audit_log
from lab.control_plane import ApiError, ControlPlane

Object = dict[str, Any]
POLICY = "compute"
SIZES, QUICK = (100, 1000, 5000), (10,)
INTERVAL = 2400.0
WINDOW, QUICK_WINDOW = 90.0, 5.0
SILENT_IN = 15.0
"""Seconds from a node's last word, which it dates back, until it counts as stale."""
SILENT_SHARE = 0.02
PAGE = 250
TURNS = 3
WRITE_SPEC, WRITE_STATUS = "patch nodeimagecaches", "patch imagecachepolicies/status"
_APPLY = "application/apply-patch+yaml"
_CONTROLLER = f"system:serviceaccount:{NAMESPACE}:basekeeper-controller"
_AGENT = f"system:serviceaccount:{NAMESPACE}:basekeeper-agent"
_REFUSED = 400


class Size:
    """A cluster of one size, and what is measured in it."""

    def __init__(self, nodes: int, quick: bool, cluster: ControlPlane, stubs: Stubs, controller: Controller) -> None:
        self._nodes, self._quick = nodes, quick
        self._silent = max(1, int(nodes * SILENT_SHARE) // len(stubs))
        """Nodes of each program that fall silent."""
        self._cluster, self._stubs, self._controller = cluster, stubs, controller
        self._etcd = Etcd(cluster)
        self.figures: Object = {"nodes": nodes}

    def measure(self) -> Object:
        """Everything, in order."""
        steps = (self._make, self._first, self._steady, self._sizes, self._edit, self._silence, self._restart)
        for step in steps:
            if self._quick and step == self._silence:
                continue  # the restart shows it too: a status comes half a minute after the last at the earliest
            began = time.monotonic()
            step()
            sys.stderr.write(f"{self._nodes} nodes, {step.__name__[1:]}: {time.monotonic() - began:.0f} s\n")
        self._codes()
        return self.figures

    def _make(self) -> None:
        self._stubs.tell("make")
        self._apply(mode="Audit")
        self._stubs.tell("open")
        self.figures["api_memory_with_watches"] = memory(self._cluster.pid("kube-apiserver"))

    def _first(self) -> None:
        """A controller that meets nodes without objects."""
        since, before, began = self._cluster.moment(), self._cpu(), time.time()
        self._controller.start()
        until(lambda: self._is_current(1), "every node has an object and runs under it", 0.5)
        self.figures["first"] = {
            "current_seconds": time.time() - began,
            "cpu": self._since(before),
            **self._written(since, began),
        }

    def _steady(self) -> None:
        self._stubs.tell("steady", interval=INTERVAL)
        time.sleep(3)
        since, counted, before, began = self._cluster.moment(), self._stubs.tell("stats"), self._cpu(), time.monotonic()
        size = self._etcd.file
        time.sleep(QUICK_WINDOW if self._quick else WINDOW)
        used, seconds, after = self._since(before), time.monotonic() - began, self._stubs.tell("stats")
        entries = self._cluster.audit(since)
        of_agents = [entry for entry in entries if entry["user"].get("username") == _AGENT]
        of_controller = [entry for entry in entries if entry["user"].get("username") == _CONTROLLER]
        grown = self._etcd.file - size
        self.figures["steady"] = {
            "seconds": seconds,
            "stubs": dict(after - counted),
            "open": after["open"],
            "agents": _named(of_agents),
            "controller": _named(of_controller),
            "share": {name: value / seconds for name, value in used.items()},
            "memory": self._memory(),
            "etcd_grown_mib": grown,
        }

    def _sizes(self) -> None:
        """Sizes of objects, of the store, and what a list and a roll-up of all objects take."""
        lists = [self._list() for _ in range(TURNS)]
        items, policy = lists[-1][1], self._policy()
        nodes = self._cluster.api("GET", NODES.path())["items"]
        world = World(
            {POLICY: snapshots.policy(policy)},
            {item["metadata"]["name"]: snapshots.node(item) for item in nodes},
            {item["metadata"]["name"]: snapshots.node_cache(item) for item in items},
            frozenset(item["metadata"]["name"] for item in nodes),
        )
        now = time.time()
        aim = desired(world, now)
        reading = [timed(lambda: [snapshots.node_cache(item) for item in items]) for _ in range(TURNS)]
        desiring = [timed(lambda: desired(world, now)) for _ in range(TURNS)]
        rolling = [timed(lambda: rollup.statuses(world, aim, now)) for _ in range(TURNS)]
        before = self._etcd.file, self._etcd.used
        self._etcd.compact()
        self.figures["sizes"] = {
            "object_bytes": [len(json.dumps(item, separators=(",", ":"))) for item in items],
            "policy_bytes": len(json.dumps(policy, separators=(",", ":"))),
            "etcd_file_mib": before[0],
            "etcd_used_mib": before[1],
            "etcd_used_after_compaction_mib": self._etcd.used,
        }
        self.figures["computing"] = {
            "list": [seconds for seconds, _ in lists],
            "read": reading,
            "desired": desiring,
            "rollup": rolling,
        }

    def _edit(self) -> None:
        """An edit that makes every node more aggressive, at once."""
        since, before, counted = self._cluster.moment(), self._cpu(), self._stubs.tell("stats")
        began = time.time()
        self._apply(mode="Enforce")
        if self._quick:
            until(lambda: len(self._entries(since, WRITE_SPEC)) >= self._nodes, "every node is told of the edit")
            until(lambda: self._stubs.tell("stats")["passes"] >= counted["passes"] + self._nodes, "every node answers")
        else:
            until(lambda: self._is_current(2), "every node runs under the edit", 0.5)
        current = time.time() - began
        entries = self._cluster.audit(since)
        self.figures["edit"] = {
            "current_seconds": current,
            "cpu": self._since(before),
            **self._written(since, began),
            "stubs": dict(self._stubs.tell("stats") - counted),
            "agents": _named(entry for entry in entries if entry["user"].get("username") == _AGENT),
            "controller": _named(entry for entry in entries if entry["user"].get("username") == _CONTROLLER),
        }

    def _silence(self) -> None:
        """Nodes whose last word is nearly as old as counts as stale."""
        stale_at = time.monotonic() + SILENT_IN
        silent = self._fall_silent(STALE_AFTER - SILENT_IN)
        self._see_stale(silent, stale_at)

    def _fall_silent(self, age: float) -> int:
        """Let some nodes say their last word, and date it back by `age` seconds; how many."""
        self._stubs.tell("silence", count=self._silent, age=age)
        return self._silent * len(self._stubs)

    def _see_stale(self, silent: int, since: float) -> None:
        seen = until(lambda: self._policy()["status"]["nodes"]["stale"] == silent, "the silent nodes are stale")
        self.figures["stale"] = {"nodes": silent, "seconds": seen - since}

    def _restart(self) -> None:
        """A controller that is stopped, while every node has news, and started."""
        self._controller.stop()
        self._stubs.tell("news", count=self._nodes)
        silent = self._fall_silent(STALE_AFTER) if self._quick else 0
        since, began, monotonic = self._cluster.moment(), time.time(), time.monotonic()
        self._controller.start()
        ready = until(self._controller.is_ready, "the controller is ready again") - time.monotonic() + time.time()
        until(lambda: self._entries(since, WRITE_STATUS), "the news are rolled up", 0.5)
        if self._quick:
            self._see_stale(silent, monotonic)
        time.sleep(2)
        self.figures["restart"] = {
            "ready_seconds": ready - began,
            **self._written(since, began),
            "list_seconds": [self._list()[0] for _ in range(TURNS)],
            "controller": _named(self._entries(since)),
            "memory": self._memory(),
        }

    def _codes(self) -> None:
        """How often the server refused, all told."""
        self.figures["refused"] = {}
        for who, user in (("controller", _CONTROLLER), ("agents", _AGENT)):
            codes = Counter(
                entry.get("responseStatus", {}).get("code", 0)
                for entry in self._cluster.audit()
                if entry["user"].get("username") == user
            )
            self.figures["refused"][who] = {str(code): codes[code] for code in codes if code >= _REFUSED}

    # --- asking ------------------------------------------------------------------------------------------------

    def _apply(self, mode: str) -> None:
        spec = {"mode": mode, "interval": "40m", "rollout": {"maxNodesPerInterval": "100%"}}
        content = {"apiVersion": POLICIES.api_version, "kind": POLICIES.kind, "metadata": {"name": POLICY}}
        path = f"{POLICIES.path(POLICY)}?fieldManager=bench&force=true"
        self._cluster.api("PATCH", path, {**content, "spec": spec}, content_type=_APPLY)

    def _policy(self) -> Object:
        found: Object = self._cluster.api("GET", POLICIES.path(POLICY))
        found.setdefault("status", {"nodes": Counter()})
        return found

    def _is_current(self, generation: int) -> bool:
        status = self._policy()["status"]
        return bool(status.get("observedGeneration") == generation and status["nodes"]["current"] == self._nodes)

    def _entries(self, since: int, what: str | None = None) -> list[audit_log.Entry]:
        """What the controller was answered, in order."""
        entries = (entry for entry in self._cluster.audit(since) if entry["user"].get("username") == _CONTROLLER)
        return [entry for entry in entries if what in {None, _name(entry)}]

    def _written(self, since: int, began: float) -> Object:
        """When the controller had written what it writes, by the API server's own clock, from the time `began` on."""
        specs, statuses = (
            [_at(entry) - began for entry in self._entries(since, what)] for what in (WRITE_SPEC, WRITE_STATUS)
        )
        return {
            "specs": len(specs),
            "specs_seconds": max(specs, default=0.0),
            "statuses": len(statuses),
            "rollup_seconds": min(statuses, default=0.0),
        }

    def _list(self) -> tuple[float, list[Object]]:
        """Seconds of a paged list of all nodes' objects, as kubectl makes it, and the objects."""
        began = time.monotonic()
        items: list[Object] = []
        more = ""
        while True:
            found = self._cluster.api("GET", f"{NODE_CACHES.path()}?limit={PAGE}&continue={more}")
            items += found["items"]
            more = found["metadata"].get("continue", "")
            if not more:
                return time.monotonic() - began, items

    def _pids(self) -> dict[str, int]:
        found = {name: self._cluster.pid(name) for name in ("kube-apiserver", "etcd")}
        pid = self._controller.pid
        return found if pid is None else {"controller": pid, **found}

    def _cpu(self) -> dict[str, float]:
        """Processor seconds of everybody so far."""
        return {**{name: cpu(pid) for name, pid in self._pids().items()}, "stub agents": self._stubs.seconds}

    def _since(self, before: dict[str, float]) -> dict[str, float]:
        return {name: seconds - before.get(name, 0.0) for name, seconds in self._cpu().items()}

    def _memory(self) -> dict[str, float]:
        found = {name: memory(pid) for name, pid in self._pids().items()}
        return {**found, "controller at most": memory(self._pids()["controller"], "VmHWM")}


def _name(entry: audit_log.Entry) -> str:
    target = entry.get("objectRef", {})
    subresource = f"/{target['subresource']}" if target.get("subresource") else ""
    return f"{entry['verb']} {target['resource']}{subresource}" if target.get("resource") else "discovery"


def _named(entries: Iterable[audit_log.Entry]) -> dict[str, int]:
    """How many requests of each kind; a watch counts once, when it begins."""
    return dict(Counter({entry["auditID"]: _name(entry) for entry in entries}.values()))


def _at(entry: audit_log.Entry) -> float:
    return datetime.fromisoformat(entry["stageTimestamp"]).timestamp()


def _install(cluster: ControlPlane) -> None:
    """Apply what the README has an administrator apply."""
    parts = [word for part in ("crds", "rbac", "admission") for word in ("-f", str(ROOT / "deploy" / part))]
    cluster.kubectl("apply", "--server-side", *parts)

    def serves() -> bool:
        with contextlib.suppress(ApiError):
            cluster.api("GET", POLICIES.path())
            cluster.api("GET", NODE_CACHES.path())
            return True
        return False

    until(serves, "the API server serves the custom resources")


# --- telling -------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure each size, and tell."""
    options = parser(__doc__)
    options.add_argument("--nodes", type=int, nargs="+", help="sizes, instead of 100, 1,000 and 5,000")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("bench_cluster: ended before it was done"))
    sizes = given.nodes or (QUICK if given.quick else SIZES)
    found = [_measured(size, given.quick) for size in sizes]
    document = Document("cluster", figures={"sizes": found})
    document.tables = list(tables(found))
    document.targets = targets(found)
    finish(document, given)


def _measured(nodes: int, quick: bool) -> Object:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-cluster-")))
        cluster = stack.enter_context(ControlPlane())
        _install(cluster)
        stubs = stack.enter_context(Stubs(cluster, nodes))
        controller = Controller(cluster, directory)
        stack.callback(controller.stop)
        return Size(nodes, quick, cluster, stubs, controller).measure()


if __name__ == "__main__":
    main()
