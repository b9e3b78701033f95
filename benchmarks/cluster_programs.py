"""The programs that bench_cluster.py measures and those that it needs for that, and what they use."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from benchmarks.measuring import ROOT
from lab.control_plane import ControlPlane
from lab.daemons import free_ports

Object = dict[str, Any]
NAMESPACE = "basekeeper"
PROCESSES = 2
PATIENCE = 400.0
MIB = float(1 << 20)
_TICKS = os.sysconf("SC_CLK_TCK")


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
