"""The controller, a real API server and etcd with 100, 1,000 and 5,000 nodes, whose agents are stubs.

Each size gets a control plane of its own. The controller is a real process under its own service account; the stubs
(stub_agents.py) hold a watch per node, with a token bound to a pod on it, and write statuses that the agent's own code
made. In turn: a controller that meets a cluster in which no node has an object; a steady window in which the nodes
make passes at the default interval and every pass has news, so that it is written; an edit of the policy that reaches
all nodes at once; nodes that fall silent; a controller that is stopped and started. All of it shares the cores of one
machine, so that seconds are those of a control plane with few of them.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from basekeeper.cluster.kinds import NODE_CACHES, NODES, POLICIES
from basekeeper.controller import rollup, snapshots
from basekeeper.controller.desired import desired
from basekeeper.controller.rollout import STALE_AFTER
from basekeeper.controller.store import World
from benchmarks.measuring import ROOT, Document, Spread, Table, Target, finish, fit, parser, timed
from lab import audit_log
from lab.control_plane import ApiError, ControlPlane
from lab.daemons import free_ports

Object = dict[str, Any]
NAMESPACE = "basekeeper"
POLICY = "compute"
SIZES, QUICK = (100, 1000, 5000), (10,)
INTERVAL = 2400.0
WINDOW, QUICK_WINDOW = 120.0, 5.0
SILENT_IN = 30.0
"""Seconds from a node's last word, which it dates back, until it counts as stale."""
SILENT_SHARE = 0.02
PROCESSES = 2
PAGE = 250
TURNS = 5
PATIENCE = 200.0
MOST_SHARE, MOST_MEMORY, MOST_SECONDS = 0.1, 500.0, 60.0
LINEAR = 1.15
"""A power of the size up to which something counts as linear; below one it has a fixed part."""
MIB = float(1 << 20)
READ, WRITE_STATUS_OF_NODE = "get nodeimagecaches", "patch nodeimagecaches/status"
WRITE_SPEC, WRITE_STATUS = "patch nodeimagecaches", "patch imagecachepolicies/status"
_TICKS = os.sysconf("SC_CLK_TCK")
_APPLY = "application/apply-patch+yaml"
_CONTROLLER = f"system:serviceaccount:{NAMESPACE}:basekeeper-controller"
_AGENT = f"system:serviceaccount:{NAMESPACE}:basekeeper-agent"
_REFUSED = 400


class Stubs:
    """The programs that stand for all agents."""

    def __init__(self, cluster: ControlPlane, count: int) -> None:
        share = -(-count // PROCESSES)
        token = json.loads(cluster.admin.read_text())["users"][0]["user"]["token"]
        self._programs: list[subprocess.Popen[str]] = []
        for first in range(0, count, share):
            words = ["--server", cluster.url, "--ca", str(cluster.ca_file), "--namespace", NAMESPACE]
            words += ["--first", str(first), "--count", str(min(share, count - first))]
            program = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.stub_agents", *words],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "operator"), str(ROOT)))},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                bufsize=1,
            )
            _say(program, token)
            self._programs.append(program)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._programs:
            program.kill()
            program.wait()

    def tell(self, what: str, **more: Any) -> Counter[str]:
        """Have every program do something at the same time; what all of them counted so far."""
        with ThreadPoolExecutor(PROCESSES) as pool:
            answers = pool.map(lambda program: self._ask(program, {"do": what, **more}), self._programs)
            total: Counter[str] = Counter()
            for answer in answers:
                total.update(answer)
        failed = {name: count for name, count in total.items() if name.startswith("failed")}
        if failed:
            raise SystemExit(f"bench_cluster: a stub agent did not do what it should: {failed}")
        return total

    @property
    def seconds(self) -> float:
        """Processor time of all programs."""
        return sum(cpu(program.pid) for program in self._programs)

    def __len__(self) -> int:
        return len(self._programs)

    def _ask(self, program: "subprocess.Popen[str]", command: Object) -> Object:
        _say(program, json.dumps(command))
        assert program.stdout is not None
        line = program.stdout.readline()
        if not line:
            raise SystemExit(f"bench_cluster: the stub agents ended with {program.wait()}")
        return dict(json.loads(line))


def _say(program: "subprocess.Popen[str]", line: str) -> None:
    assert program.stdin is not None
    program.stdin.write(line + "\n")
    program.stdin.flush()


class Controller:
    """A controller as a process."""

    def __init__(self, cluster: ControlPlane, directory: Path) -> None:
        self._kubeconfig = cluster.kubeconfig(cluster.token("basekeeper-controller", NAMESPACE), "controller")
        self._log = directory / "controller.log"
        self._port = free_ports(1)[0]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Start it, and say when, by the monotonic clock."""
        words = ["controller", "--namespace", NAMESPACE, "--kubeconfig", str(self._kubeconfig)]
        path = os.pathsep.join(filter(None, (str(ROOT / "operator"), os.environ.get("PYTHONPATH"))))
        began = time.monotonic()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "basekeeper", *words, "--listen", f"127.0.0.1:{self._port}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
            )
        return began

    def stop(self) -> None:
        """End it as a kubelet does; once more does no harm."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @property
    def pid(self) -> int | None:
        """Its process; None before the first start."""
        if self._process is None:
            return None
        if self._process.poll() is not None:
            raise SystemExit(f"bench_cluster: the controller has ended; it said: {self._log.read_text()[-2000:]}")
        return self._process.pid

    def is_ready(self) -> bool:
        """Whether it says so."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=5.0)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        return False


# --- measuring -----------------------------------------------------------------------------------------------------


def cpu(pid: int) -> float:
    """Processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(pid: int, what: str = "VmRSS") -> float:
    """Resident MiB of a process, now (`VmRSS`) or at most (`VmHWM`)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"bench_cluster: /proc/{pid}/status has no {what}")


def until(check: Callable[[], object], what: str, every: float = 0.1) -> float:
    """Wait until something is true; the monotonic time then."""
    deadline = time.monotonic() + PATIENCE
    while not check():
        if time.monotonic() > deadline:
            raise SystemExit(f"bench_cluster: not within {PATIENCE:.0f} s: {what}")
        time.sleep(every)
    return time.monotonic()


class Etcd:
    """How large the store is."""

    def __init__(self, cluster: ControlPlane) -> None:
        self._address = urlsplit(cluster.etcd_url).netloc

    @property
    def file(self) -> float:
        """MiB of its file."""
        return self._figure("etcd_mvcc_db_total_size_in_bytes")

    @property
    def used(self) -> float:
        """MiB of its file that hold something."""
        return self._figure("etcd_mvcc_db_total_size_in_use_in_bytes")

    def compact(self) -> None:
        """Forget all old revisions, as the API server has it do every five minutes."""
        found = self._post("kv/range", {"key": "AA=="})
        self._post("kv/compaction", {"revision": found["header"]["revision"], "physical": True})

    def _figure(self, name: str) -> float:
        found = re.search(rf"^{name} (\S+)$", self._ask("GET", "/metrics"), re.MULTILINE)
        if found is None:
            raise SystemExit(f"bench_cluster: etcd has no metric {name}")
        return float(found[1]) / MIB

    def _post(self, path: str, body: Object) -> Object:
        return dict(json.loads(self._ask("POST", f"/v3/{path}", json.dumps(body))))

    def _ask(self, method: str, path: str, body: str | None = None) -> str:
        connection = http.client.HTTPConnection(self._address, timeout=60.0)
        with contextlib.closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            said = answer.read().decode()
        if answer.status != http.client.OK:
            raise SystemExit(f"bench_cluster: etcd answers {path} with {answer.status}: {said[:200]}")
        return said


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
    sizes = given.nodes or (QUICK if given.quick else SIZES)
    found = [_measured(size, given.quick) for size in sizes]
    document = Document("cluster", figures={"sizes": found})
    document.tables = list(_tables(found))
    document.targets = _targets(found)
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


def _table(title: str, found: list[Object], rows: Sequence[tuple[str, Callable[[Object], str]]], *notes: str) -> Table:
    sizes = [f"{item['nodes']:,} nodes" for item in found]
    return Table(title, ("", *sizes), [(name, *(show(item) for item in found)) for name, show in rows], notes)


def _seconds(part: str, what: str) -> Callable[[Object], str]:
    return lambda item: f"{item[part][what]:.1f} s"


def _share(who: str) -> Callable[[Object], str]:
    return lambda item: f"{100 * item['steady']['share'][who]:.1f} %"


def _mib(part: str, what: str) -> Callable[[Object], str]:
    return lambda item: f"{item[part]['memory'][what]:.0f} MiB"


def _each(part: str, what: str) -> Callable[[Object], str]:
    return lambda item: Spread.of(item[part][what]).shown("ms", 1000)


def _tables(found: list[Object]) -> Iterator[Table]:
    steady = [
        ("controller, share of a core", _share("controller")),
        ("API server", _share("kube-apiserver")),
        ("etcd", _share("etcd")),
        ("controller, resident", _mib("steady", "controller")),
        ("controller, at most so far", _mib("steady", "controller at most")),
        ("API server, resident", _mib("steady", "kube-apiserver")),
        ("statuses written a second", lambda item: f"{_steady_rate(item):.2f}"),
        ("etcd's file grew, MiB an hour", lambda item: f"{_hourly(item, 'etcd_grown_mib'):.0f}"),
    ]
    yield _table("steady: every node makes a pass each 40 minutes, and each has news", found, steady)
    speed = [
        ("start, no node has an object: all are written", _seconds("first", "specs_seconds")),
        ("  first roll-up", _seconds("first", "rollup_seconds")),
        ("  all nodes report, and that is rolled up", _seconds("first", "current_seconds")),
        ("edit of the policy: in all specs", _seconds("edit", "specs_seconds")),
        ("  all nodes report, and that is rolled up", _seconds("edit", "current_seconds")),
        ("  controller's processor seconds", lambda item: f"{item['edit']['cpu']['controller']:.1f} s"),
        ("  API server's", lambda item: f"{item['edit']['cpu']['kube-apiserver']:.1f} s"),
        ("  stub agents'", lambda item: f"{item['edit']['cpu']['stub agents']:.1f} s"),
        ("silent nodes are told of, after they count as stale", _seconds("stale", "seconds")),
        ("restart: ready", _seconds("restart", "ready_seconds")),
        ("  first roll-up", _seconds("restart", "rollup_seconds")),
        ("  a paged list of the same objects", lambda item: Spread.of(item["restart"]["list_seconds"]).shown()),
        ("  specs written, of which none was needed", lambda item: str(item["restart"]["specs"])),
        ("  resident at most", _mib("restart", "controller at most")),
    ]
    yield _table("how soon", found, speed, "Nodes answer an edit within five seconds, with a GET and a status each.")
    cost = [
        ("watches, each opened once", lambda item: f"{_watches(item):.2f}"),
        ("GETs a pass", lambda item: f"{_reads(item):.3f}"),
        ("writes a pass with news or heartbeat", lambda item: f"{_writes(item):.3f}"),
        ("other requests", lambda item: str(_others(item))),
        ("bytes of its watch, an event", _watch_bytes),
        ("its object, bytes", lambda item: Spread.of(item["sizes"]["object_bytes"]).shown("B")),
    ]
    yield _table("what a node costs, in the steady window and with the edit", found, cost)
    store = [
        ("the policy's object", lambda item: f"{item['sizes']['policy_bytes'] / 1024:.0f} KiB"),
        ("etcd's file before the edit", lambda item: f"{item['sizes']['etcd_file_mib']:.0f} MiB"),
        ("  in use", lambda item: f"{item['sizes']['etcd_used_mib']:.0f} MiB"),
        ("  in use after compaction", lambda item: f"{item['sizes']['etcd_used_after_compaction_mib']:.0f} MiB"),
        ("the controller was refused", lambda item: _refusals(item, "controller")),
        ("agents were refused", lambda item: _refusals(item, "agents")),
    ]
    yield _table("sizes and refusals", found, store)
    computing = [
        ("listing all objects", _each("computing", "list")),
        ("making snapshots of them", _each("computing", "read")),
        ("what every node should be", _each("computing", "desired")),
        ("the policy's status", _each("computing", "rollup")),
    ]
    yield _table("computing, of the same objects in one process", found, computing, *_fits(found))


def _fits(found: list[Object]) -> list[str]:
    if len(found) < 2:
        return []
    line = fit(*_rollups(found))
    return [f"The roll-up grows with nodes to the power {line.exponent:.2f}; r2 of a line {line.r_squared:.4f}."]


def _rollups(found: list[Object]) -> tuple[list[float], list[float]]:
    """Sizes, and the median seconds of everything that a roll-up computes."""
    values = [sum(Spread.of(item["computing"][part]).median for part in ("desired", "rollup")) for item in found]
    return [float(item["nodes"]) for item in found], values


def _steady_rate(item: Object) -> float:
    return float(item["steady"]["agents"].get(WRITE_STATUS_OF_NODE, 0) / item["steady"]["seconds"])


def _hourly(item: Object, what: str) -> float:
    return float(item["steady"][what] * 3600 / item["steady"]["seconds"])


def _did(item: Object, *what: str) -> int:
    """What the stubs did in the steady window and after the edit, by their own count."""
    return sum(item[part]["stubs"].get(name, 0) for part in ("steady", "edit") for name in what)


def _asked(item: Object) -> Counter[str]:
    """What agents asked in the same time, by the audit log."""
    return Counter(item["steady"]["agents"]) + Counter(item["edit"]["agents"])


def _reads(item: Object) -> float:
    return _asked(item)[READ] / max(1, _did(item, "passes"))


def _writes(item: Object) -> float:
    return _asked(item)[WRITE_STATUS_OF_NODE] / max(1, _did(item, "passes", "heartbeats"))


def _watches(item: Object) -> float:
    return float(item["steady"]["open"] / item["nodes"])


def _others(item: Object) -> int:
    return sum(count for name, count in _asked(item).items() if name not in (READ, WRITE_STATUS_OF_NODE))


def _watch_bytes(item: Object) -> str:
    return f"{_did(item, 'watch bytes') / max(1, _did(item, 'watch events')):.0f} B"


def _refusals(item: Object, who: str) -> str:
    return ", ".join(f"{count} x {code}" for code, count in sorted(item["refused"][who].items())) or "never"


def _targets(found: list[Object]) -> list[Target]:
    """Those of the issue, judged at the largest size."""
    last = found[-1]
    share = last["steady"]["share"]["controller"]
    most = last["restart"]["memory"]["controller at most"]
    most = max(most, last["steady"]["memory"]["controller at most"])
    starts = [last["first"]["rollup_seconds"], last["restart"]["rollup_seconds"]]
    edit = last["edit"]["specs_seconds"]
    costs = [(_watches(item), _reads(item), _writes(item), _others(item)) for item in found]
    same = all(cost == (1.0, 1.0, 1.0, 0) for cost in costs)
    size = f"{last['nodes']:,} nodes"
    shown = "; ".join(f"{watches:.2f}, {reads:.2f}, {writes:.2f}" for watches, reads, writes, _ in costs)
    targets = [
        Target(f"controller, {size}: share of a core", "< 10 %", f"{100 * share:.1f} %", share < MOST_SHARE),
        Target(f"controller, {size}: memory", "< 500 MiB", f"{most:.0f} MiB", most < MOST_MEMORY),
        Target(
            f"first roll-up, {size}: new cluster, restart",
            "< 60 s",
            ", ".join(f"{seconds:.1f} s" for seconds in starts),
            max(starts) < MOST_SECONDS,
        ),
        Target(f"edit in all specs, {size}", "< 60 s", f"{edit:.1f} s", edit < MOST_SECONDS),
        Target(
            "watches a node, GETs a pass, writes a pass with news or heartbeat", "1, 1, 1 at all sizes", shown, same
        ),
        Target(
            "specs written by a controller that starts again",
            "0",
            str(last["restart"]["specs"]),
            last["restart"]["specs"] == 0,
        ),
    ]
    if len(found) > 1:
        line = fit(*_rollups(found))
        linear = line.exponent < LINEAR
        targets.append(Target("growth of the roll-up with nodes", "linear", f"power {line.exponent:.2f}", linear))
    return targets


if __name__ == "__main__":
    main()
