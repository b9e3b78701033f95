"""A node of a real cluster: containerd and a kubelet with the directories of a compute node, several on one machine.

    with KubeNode("node-a", 1, cluster, network) as node:
        node.load(archive)
        node.wait_until_ready()

All nodes share this machine's kernel and nothing else that a pod could tell: each has mounts of its own, so that the
paths that a pod asks its node for are the real ones (/var/lib/nova, /run/libvirt) and lead to this node's directories;
processes, containers, pods' addresses and cgroups are its own too. It needs root. What is left behind, even by a
process that was killed, is ended and removed by `kube_node_keeper`, or, if that was killed too, by the next `clean_up`.
"""

import contextlib
import fcntl
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab import kube_node_keeper
from lab.compute_node import LabError
from lab.control_plane import ApiError, ControlPlane
from lab.control_plane_programs import tool
from lab.network import BRIDGE, GATEWAY, POD_NETWORK, Network, node_address, pod_range
from lab.opening import Opening

PAUSE_IMAGE = "localhost/pause:1"
READY_TIMEOUT = 120.0
LOAD_TIMEOUT = 120.0
_REGISTRATIONS = Path("/run/basekeeper-lab")
_CGROUPS = Path("/sys/fs/cgroup")
# Where containerd and kubelet, libvirt and pods write: all of it belongs to the node.
_OWN = ("run", "var/lib", "var/log", "var/cache")
_FIRST_INSIDE = 2
_CNI_PROGRAMS = Path("/usr/lib/cni")
# A kubelet sets these switches of the kernel as it likes them. This machine is not its own: it gets files instead.
_SWITCHES = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops",
             "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")  # fmt: skip


def clean_up() -> None:
    """Remove what nodes have left whose keeper was killed; nodes that live are left alone."""
    for registration in _REGISTRATIONS.glob("*.json"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), registration.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            kube_node_keeper.remove(json.load(file))


class KubeNode(Opening):
    """A kubelet and its containerd, ready when the context is entered and gone when it is left."""

    def __init__(self, name: str, number: int, cluster: ControlPlane, network: Network) -> None:
        """Describe a cluster's first, second, … node; its own /run, /var/lib, /var/log, /var/cache lie in `root`."""
        self.name = name
        self._cluster = cluster
        self._network = network
        self._seen: dict[Path, Path] = {}
        self._address = node_address(number)
        self._pods = pod_range(number)
        self.root = Path(tempfile.mkdtemp(prefix="bk-"))
        self.root.chmod(0o755)
        for directory in _OWN:
            (self.root / directory).mkdir(parents=True)
        self._programs = tool("containerd")
        self._keeper: subprocess.Popen[str] | None = None

    # --- life --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        self._start_keeper()

    def close(self) -> None:
        """End the node and every pod on it, and remove its directories; once more does no harm."""
        if self._keeper is not None:
            self._keeper.communicate()
            self._keeper = None
        shutil.rmtree(self.root, ignore_errors=True)

    def see(self, directory: Path, lies_in: Path) -> None:
        """Let a directory of the node, which is not open yet, lie somewhere else than in `root`."""
        self._seen[directory] = lies_in

    def load(self, archive: Path) -> None:
        """Give the node an image, as `buildah push docker-archive:` writes it."""
        address = ("--address", str(self.root / "run/containerd/containerd.sock"))
        command = [str(self._programs / "ctr"), *address, "--namespace", "k8s.io", "images", "import", str(archive)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LOAD_TIMEOUT, check=False)
        if done.returncode != 0:
            raise LabError(f"{self.name} cannot load {archive.name}: {done.stderr.strip()}")

    def wait_until_ready(self) -> None:
        """Wait until the cluster calls the node ready, and no taint keeps pods from it."""
        deadline = time.monotonic() + READY_TIMEOUT
        while not self._is_ready():
            if time.monotonic() > deadline or self._keeper is None or self._keeper.poll() is not None:
                raise LabError(f"{self.name} does not become ready\n{self.log('containerd')}\n{self.log('kubelet')}")
            time.sleep(0.1)

    def log(self, program: str, lines: int = 20) -> str:
        """Return the end of what `containerd` or `kubelet` has said."""
        file = self.root / f"{program}.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.exists() else ""

    @property
    def enter(self) -> tuple[str, ...]:
        """What to put before a command that shall see the node's mounts and processes."""
        return ("nsenter", f"--target={self.first_inside}", "--mount", "--pid", "--net", "--")

    @property
    def first_inside(self) -> int:
        """The id of a process in the node's own namespaces, and in no pod's."""
        return self.processes()[_FIRST_INSIDE]

    def processes(self) -> list[int]:
        """Return the ids of the keeper and of all below it: what makes the namespaces, the first inside, the rest."""
        found = [self._keeper.pid] if self._keeper is not None else []
        for process in found:
            found += [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
        return found

    # --- inside ------------------------------------------------------------------------------------------------

    def _is_ready(self) -> bool:
        try:
            node = self._cluster.api("GET", f"/api/v1/nodes/{self.name}")
        except ApiError:
            return False
        conditions = {item["type"]: item["status"] for item in node["status"].get("conditions", ())}
        return conditions.get("Ready") == "True" and not node["spec"].get("taints")

    def _start_keeper(self) -> None:
        (self.root / "etc").mkdir()
        self._configure_containerd()
        self._configure_kubelet()
        binds = [(self.root / own, Path("/") / own) for own in _OWN]
        binds += [(source, target) for target, source in self._seen.items()]
        containerd, kubelet = self._programs / "containerd", self._cluster.programs / "kubelet"
        options = (f"--hostname-override={self.name}", f"--node-ip={self._address}", "--root-dir=/var/lib/kubelet")
        _REGISTRATIONS.mkdir(exist_ok=True)
        registration = _REGISTRATIONS / f"{self.root.name}.json"
        node: dict[str, Any] = {
            "root": str(self.root),
            "registration": str(registration),
            "cgroups": [str(cgroup) for cgroup in self._cgroups()],
            "enter": [
                *self._network.enter,
                # Slave: what is mounted outside is seen inside; what is mounted inside is never seen outside.
                *("unshare", "--mount", "--propagation", "slave", "--pid", "--mount-proc", "--fork", "--kill-child"),
            ],
            "binds": [(str(source), str(target)) for source, target in binds],
            "files": [(str(file), str(switch)) for file, switch in self._make_switches()],
            "socket": "/run/containerd/containerd.sock",
            "commands": {
                "containerd": [str(containerd), "--config", str(self.root / "etc/containerd.toml")],
                "kubelet": [
                    *(str(kubelet), f"--config={self.root}/etc/kubelet.json"),
                    *(f"--kubeconfig={self._cluster.kubeconfig_of(self.name)}", *options),
                ],
            },
            "logs": {name: str(self.root / f"{name}.log") for name in ("containerd", "kubelet")},
            "path": f"{self._programs}:/usr/sbin:/usr/bin:/sbin:/bin",
        }
        registration.write_text(json.dumps(node))
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", kube_node_keeper.__file__, "outside", str(registration)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the owner, who then closes the node in order
        )
        assert self._keeper.stdout is not None
        if not self._keeper.stdout.readline():
            _, complaint = self._keeper.communicate()
            raise LabError(f"{self.name} does not start: {complaint.strip()}")

    def _make_switches(self) -> Iterator[tuple[Path, Path]]:
        for name in _SWITCHES:
            switch = Path("/proc/sys") / name
            file = self.root / "etc" / switch.name
            file.write_text(switch.read_text())
            yield file, switch

    def _cgroups(self) -> list[Path]:
        """Where the node's processes are counted: one group, or one of each kind where cgroups are of version 1."""
        if (_CGROUPS / "cgroup.controllers").exists():
            return [_CGROUPS / self.root.name]
        kinds = {path.resolve() for path in _CGROUPS.iterdir() if (path / "cgroup.procs").exists()}
        return sorted(kind / self.root.name for kind in kinds)

    def _configure_containerd(self) -> None:
        network = {
            "cniVersion": "1.0.0",
            "name": BRIDGE,
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": BRIDGE,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [
                            [
                                {
                                    "subnet": POD_NETWORK,
                                    "rangeStart": self._pods[0],
                                    "rangeEnd": self._pods[1],
                                    "gateway": GATEWAY,
                                }
                            ]
                        ],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                }
            ],
        }
        (self.root / "etc/cni").mkdir()
        (self.root / "etc/cni/basekeeper.conflist").write_text(json.dumps(network))
        (self.root / "etc/containerd.toml").write_text(
            f"""version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
# The second would make a directory of this machine.
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]
[grpc]
address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{_CNI_PROGRAMS}"]
conf_dir = "{self.root}/etc/cni"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE_IMAGE}"
"""
        )

    def _configure_kubelet(self) -> None:
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self._address,
            "healthzPort": 0,
            # Nobody but this cluster's API server and its pods can reach it.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.root.name}",
            "failCgroupV1": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            # Neither can be better where CAP_SYS_RESOURCE is missing.
            "maxOpenFiles": 20000,
            "oomScoreAdj": 0,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "5s",
        }
        (self.root / "etc/kubelet.json").write_text(json.dumps(configuration))
