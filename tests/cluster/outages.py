"""What tests of outages need beside a fleet: agents that are told directly, behind proxies, and how to look at them."""

import json
import os
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lab.certificates import Authority
from lab.nova_tree import DAY, NovaTree
from lab.proxy import Fault, FaultyProxy
from tests.cluster.fleet import CACHES, LABELS, NAMESPACE, Fleet, Object, Program, eventually

LONG = bool(os.environ.get("BASEKEEPER_TEST_LONG"))
"""Whether outages last as long as those that operators fear, or as long as it takes to see what they do."""
OUTAGE = 120.0 if LONG else 10.0
PATIENCE = 90.0 + OUTAGE
_APPLY = "application/apply-patch+yaml"


def tell(fleet: Fleet, node: str, *, interval: str = "2s", mode: str = "Enforce", **spec: Any) -> Object:
    """Tell a node what to do as the controller would, with intervals that no policy may have."""
    origin = {"name": "direct", "uid": "0", "generation": 1}
    content = {
        "apiVersion": "basekeeper.io/v1alpha1",
        "kind": "NodeImageCache",
        "metadata": {"name": node},
        "spec": {"policy": origin, "mode": mode, "interval": interval, "limits": {"maxPercent": 100}} | spec,
    }
    path = f"{CACHES}/{node}?fieldManager=test&force=true"
    return dict(fleet.cluster.api("PATCH", path, content, content_type=_APPLY))


def furnish(fleet: Fleet, node: str) -> tuple[Path, Path]:
    """A base that is used and one that is not."""
    fleet.add_node(node)
    tree = fleet.tree(node)
    used = tree.add_base(f"used-{node}", age=3 * DAY)
    tree.add_overlay("0f3c0000-0000-4000-8000-000000000001", used)
    return used, tree.add_base(f"unused-{node}", age=3 * DAY, seed=2)


def ripen(fleet: Fleet, node: str, name: str, seconds: float) -> Path:
    """A base that becomes old enough to go in so many seconds.

    It comes whole: a pass that saw it while it was written would count that as its last use.
    """
    made = NovaTree(fleet.state(node).with_name("made")).add_base(f"{name}-{node}", age=DAY - seconds, seed=3)
    return made.rename(fleet.tree(node).base_dir / made.name)


def removals(program: Program) -> Counter[str]:
    """How often an agent says that it removed each file."""
    return Counter(re.findall(r" quarantined file=(\S+)", program.said))


def await_removals(program: Program, count: int) -> Counter[str]:
    """Wait until an agent has said that it removed so many files, which it does once a pass's acts are over."""
    eventually(lambda: len(removals(program)) >= count, f"{program.name} says that {count} files went")
    return removals(program)


def quarantined(fleet: Fleet, node: str) -> list[str]:
    """Names of the files in a node's quarantine."""
    found = (fleet.tree(node).base_dir / ".basekeeper" / "quarantine").glob("*/*")
    return sorted(path.name for path in found if re.fullmatch("[0-9a-f]{40}", path.name))


def everything(fleet: Fleet, node: str) -> list[tuple[str, int, int]]:
    """All that lies under a node's instances path: names, inodes, times of change."""
    top = fleet.tree(node).instances_path
    found = [(path, path.lstat()) for path in [top, *top.rglob("*")]]
    return sorted((str(path), about.st_ino, about.st_mtime_ns) for path, about in found)


def is_ready(program: Program) -> bool:
    """Whether a program says that it is ready."""
    return program.ask("/readyz")[0] == 200


def await_ready(program: Program) -> None:
    """Wait until a program says that it is ready."""
    eventually(lambda: is_ready(program), f"{program.name} is ready", PATIENCE)


def await_unready(program: Program) -> None:
    """Wait until a program says that it is not ready."""
    eventually(lambda: not is_ready(program), f"{program.name} is not ready")


def is_alive(program: Program) -> bool:
    """Whether a program still is the process that was started, and says that it lives."""
    assert program.process is not None
    return program.process.poll() is None and program.ask("/livez")[0] == 200


def processor_seconds(program: Program) -> float:
    """How long a program has used a processor."""
    assert program.process is not None
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mebibytes(program: Program) -> float:
    """How much memory a program has now."""
    assert program.process is not None
    status = Path(f"/proc/{program.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


class GrowingDeaf(FaultyProxy):
    """A proxy that can let the connections which are open fall silent, and serve new ones: a lost entry of a NAT."""

    def __init__(self, server_port: int, authority: Authority) -> None:
        self._fault = Fault.PASS
        self._deaf: set[threading.Thread] = set()
        super().__init__(server_port, authority)

    @property
    def fault(self) -> Fault:
        return Fault.FREEZE if threading.current_thread() in self._deaf else self._fault

    @fault.setter
    def fault(self, fault: Fault) -> None:
        self._fault = fault

    def silence(self) -> None:
        """Whatever is open now says nothing any more."""
        self._deaf |= self._open


@contextmanager
def proxies(fleet: Fleet, count: int) -> Iterator[list[GrowingDeaf]]:
    """Some proxies before the API server."""
    cluster = fleet.cluster
    with ExitStack() as stack:
        yield [stack.enter_context(GrowingDeaf(cluster._installation.port, cluster._authority)) for _ in range(count)]


def start_behind(proxy: FaultyProxy, fleet: Fleet, node: str, *options: str) -> Program:
    """Start a node's agent behind a proxy."""
    return fleet.start_agent(node, *options, server=proxy.url, ca=proxy.ca_file)


def all_gone(paths: Iterable[Path], timeout: float = PATIENCE) -> None:
    """Wait until none of these files is where it was."""
    kept = list(paths)
    eventually(lambda: not any(path.exists() for path in kept), "the unused are gone", timeout)


def reported(fleet: Fleet, node: str, files: int, timeout: float = PATIENCE) -> Object:
    """Wait until a node reports so many files in quarantine."""

    def check() -> Object | None:
        found = fleet.cache(node)
        return found if found["status"]["cache"]["quarantinedFiles"] == files else None

    return dict(eventually(check, f"{node} reports {files} files in quarantine", timeout))


def use_token_file(program: Program, token: Path) -> None:
    """Let a program's kubeconfig name a file that has its token, as a pod's service account does."""
    kubeconfig = Path(program.command[program.command.index("--kubeconfig") + 1])
    content = json.loads(kubeconfig.read_text())
    content["users"][0]["user"] = {"tokenFile": str(token)}
    kubeconfig.write_text(json.dumps(content))


def replace_pod(fleet: Fleet, node: str) -> None:
    """Make a node's agent's pod anew; tokens that are bound to the old one end."""
    fleet.delete(f"/api/v1/namespaces/{NAMESPACE}/pods/agent-{node}")
    fleet.cluster.add_pod(f"agent-{node}", NAMESPACE, node=node, labels=LABELS, service_account="basekeeper-agent")
