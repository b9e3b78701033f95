"""A whole cluster on this machine: a control plane, kubelets, and a compute node's directories and libvirtd for each.

    with RealCluster("node-a", "node-b") as cluster:
        cluster.build_and_load()
        cluster.helm("install", "basekeeper", "deploy/helm/basekeeper")

Everything is real but the machines: all nodes share one kernel, in a network of their own (`network`), with
directories of their own (`kube_node`). What `make cluster-demo` shows and `tests/kubelet` asserts runs here
(`cluster_story`).
"""

import contextlib
import os
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lab import compute_node, kube_node
from lab.compute_node import ComputeNode, LabError
from lab.control_plane import ControlPlane, Object
from lab.control_plane_programs import API_SERVER, CONTROLLER_MANAGER, ETCD, SCHEDULER, tool
from lab.images import build_image, write_pause_image
from lab.kube_node import KubeNode
from lab.libvirt_files import NOVA
from lab.network import Network
from lab.nova_tree import NovaTree
from lab.opening import Opening

INSTANCES = Path("/var/lib/nova/instances")
# As openstack-helm labels a host that is both: agents go to the first kind, the controller to the second.
LABELS = {"openstack-compute-node": "enabled", "openstack-control-plane": "enabled"}
PROGRAMS = (ETCD, API_SERVER, CONTROLLER_MANAGER, SCHEDULER)
HELM_TIMEOUT = 300.0
_MERGE = "application/merge-patch+json"
_PROGRAMS = {"nsenter": "util-linux", "ip": "iproute2", "runc": "runc", "mount": "mount"}


def available() -> str | None:
    """Say why no cluster can run here, or None when one can."""
    if os.geteuid() != 0:
        return "kubelets need root: run it as root"
    if complaint := compute_node.available():
        return complaint
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = [package for program, package in _PROGRAMS.items() if shutil.which(program, path=path) is None]
    if not Path("/usr/lib/cni/bridge").exists():
        missing.append("containernetworking-plugins")
    if missing:
        return f"these Debian packages are missing: {', '.join(missing)}; run scripts/setup test"
    probe = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "true"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if probe.returncode != 0:
        return f"root may not make namespaces here: {probe.stderr.strip()} (a container needs --privileged)"
    return _cgroups_complaint() or _overlay_complaint()


def _cgroups_complaint() -> str | None:
    root = Path("/sys/fs/cgroup")
    unified = root / "cgroup.controllers"
    there = set(unified.read_text().split()) if unified.exists() else {kind.name for kind in root.iterdir()}
    if missing := {"cpu", "cpuset", "memory", "pids"} - there:
        return f"a kubelet needs the cgroup controllers {', '.join(sorted(missing))}, which {root} lacks"
    # In the first version the directory above may well be read-only.
    if not os.access(place := root if unified.exists() else root / "memory", os.W_OK):
        return f"{place} is read-only here: a kubelet makes cgroups for its pods (a container needs --privileged)"
    return None


def _overlay_complaint() -> str | None:
    with tempfile.TemporaryDirectory(prefix="bk-") as place:
        lower, upper, work, top = (Path(place) / name for name in ("lower", "upper", "work", "top"))
        for directory in (lower, upper, work, top):
            directory.mkdir()
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        probe = subprocess.run(
            ["unshare", "--mount", "mount", "-t", "overlay", "none", "-o", options, str(top)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if probe.returncode == 0:
        return None
    where = tempfile.gettempdir()
    return f"containers cannot live in {where} ({probe.stderr.strip()}): set TMPDIR to a directory on a disk of its own"


@dataclass(frozen=True)
class Machine:
    """A node of the cluster: what runs pods, what runs instances, and the instances' directory."""

    kube: KubeNode
    compute: ComputeNode
    tree: NovaTree

    def give_to_nova(self) -> None:
        """Let nova own everything in its tree, as if it had made it."""
        for directory, _, files in os.walk(self.kube.root / "var/lib/nova"):
            os.chown(directory, NOVA, NOVA)
            for file in files:
                os.chown(Path(directory) / file, NOVA, NOVA, follow_symlinks=False)

    def outside(self, path: str | Path) -> Path:
        """Where a file of the node below /var/lib lies on this machine."""
        return self.kube.root / Path(path).relative_to("/")


class RealCluster(Opening):
    """The control plane and its nodes, ready when the context is entered and gone when it is left."""

    def __init__(self, *names: str) -> None:
        """Describe a cluster with nodes of these names."""
        if complaint := available():
            raise LabError(complaint)
        self._names = names
        self._stack = ExitStack()
        self.machines: dict[str, Machine] = {}

    def _open(self) -> None:
        kube_node.clean_up()
        self.network = self._stack.enter_context(Network())
        control = ControlPlane(version="current", network=self.network, nodes=self._names)
        self.control = self._stack.enter_context(control)
        for number, name in enumerate(self._names, 1):
            self.machines[name] = self._start(name, number)
        pause = self.control.root / "pause.tar"
        write_pause_image(pause)
        self.load(pause)
        for name, machine in self.machines.items():
            machine.kube.wait_until_ready()
            labels = {"metadata": {"labels": LABELS}}
            self.control.api("PATCH", f"/api/v1/nodes/{name}", labels, content_type=_MERGE)

    def close(self) -> None:
        """End everything and remove it; once more does no harm."""
        self._stack.close()

    def load(self, archive: Path) -> None:
        """Give every node an image."""
        for machine in self.machines.values():
            machine.kube.load(archive)

    def build_and_load(self) -> str:
        """Give every node basekeeper's image, built from this tree, and return what the build says of it."""
        archive = self.control.root / "image.tar"
        said = build_image(archive)
        self.load(archive)
        archive.unlink()
        return said

    def helm(self, *arguments: str, check: bool = True, name: str = "helm4") -> str:
        """Run Helm as the administrator and return what it says; a failure is an error unless `check=False`."""
        program = tool(name) / {"helm4": "helm", "helm3": "helm3"}[name]
        home = str(self.control.root)
        environment = {**os.environ, "HOME": home, "KUBECONFIG": str(self.control.admin), "HELM_CACHE_HOME": home}
        environment |= {"HELM_CONFIG_HOME": home, "HELM_DATA_HOME": home}
        done = subprocess.run(
            [str(program), *arguments],
            env=environment, capture_output=True, text=True, timeout=HELM_TIMEOUT, check=False,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise LabError(f"helm {' '.join(arguments)}: {done.stderr.strip()}\n{done.stdout.strip()}")
        return done.stdout + done.stderr

    def processes(self, pod: Object) -> list[int]:
        """Return the ids that a pod's processes have on this machine, but not of what holds its namespaces."""
        containers = [status["containerID"].rpartition("/")[2] for status in pod["status"]["containerStatuses"]]
        found = []
        for cgroup in Path("/proc").glob("[0-9]*/cgroup"):
            with contextlib.suppress(OSError):
                if any(container in cgroup.read_text() for container in containers):
                    found.append(int(cgroup.parent.name))
        return found

    def memory(self) -> int:
        """Return how many bytes all processes of the cluster hold: control plane, nodes, pods and instances."""
        processes = {self.control.pid(program) for program in PROGRAMS}
        for machine in self.machines.values():
            processes.update(machine.kube.processes())
            processes.update(machine.compute.processes())
        return sum(map(_held_by, processes))

    def _start(self, name: str, number: int) -> Machine:
        kube = KubeNode(name, number, self.control, self.network)
        self._stack.callback(kube.close)
        library = kube.root / "var/lib"
        tree = NovaTree(library / INSTANCES.relative_to("/var/lib"), seen_as=INSTANCES)
        compute = ComputeNode(name, qemu_user=None, directories={Path("/var/lib"): library}, with_polkit=True)
        self._stack.enter_context(compute)
        kube.see(Path("/run/libvirt"), compute.root / "run")
        self._stack.enter_context(kube)
        machine = Machine(kube, compute, tree)
        machine.give_to_nova()
        return machine


def _held_by(process: int) -> int:
    """A process's own memory and its part of what it shares."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
