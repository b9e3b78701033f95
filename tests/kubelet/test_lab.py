"""The laboratory's own cluster: nodes are what a pod takes for machines, and nothing outlives its owner."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import kube_node
from lab.compute_node import LabError, has_ended
from lab.kube_node import PAUSE_IMAGE
from lab.libvirt_files import NOVA
from lab.real_cluster import RealCluster

TOP = Path(__file__).parents[2]
PODS = "/api/v1/namespaces/default/pods"
SCRIPT = """
from lab.real_cluster import RealCluster
with RealCluster("node-a") as cluster:
    print(cluster.machines["node-a"].kube.root, *cluster.machines["node-a"].kube.processes(), flush=True)
    input()
"""
Object = dict[str, Any]


def eventually(check: Callable[[], Any], what: str, timeout: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {what}"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[RealCluster]:
    try:
        with RealCluster("node-a", "node-b") as running:
            yield running
    except LabError as error:
        pytest.fail(f"no cluster can run here: {error}", pytrace=False)


def run_pod(cluster: RealCluster, node: str) -> Object:
    """Run a pod on a node, with a compute node's directories, until it says that it runs."""
    volumes = {"nova": "/var/lib/nova", "libvirt": "/run/libvirt"}
    spec = {
        "nodeName": node,
        "terminationGracePeriodSeconds": 0,
        "volumes": [{"name": name, "hostPath": {"path": path}} for name, path in volumes.items()],
        "containers": [
            {
                "name": "main",
                "image": PAUSE_IMAGE,
                "imagePullPolicy": "Never",
                "volumeMounts": [
                    {"name": name, "mountPath": path, "mountPropagation": "HostToContainer"}
                    for name, path in volumes.items()
                ],
            }
        ],
    }
    cluster.control.api("POST", PODS, {"metadata": {"name": node}, "spec": spec})

    def running() -> Object | None:
        pod: Object = cluster.control.api("GET", f"{PODS}/{node}")
        return pod if pod["status"]["phase"] == "Running" else None

    return dict(eventually(running, f"the pod on {node} runs"))


@pytest.fixture(scope="module")
def pods(cluster: RealCluster) -> dict[str, Object]:
    return {name: run_pod(cluster, name) for name in cluster.machines}


def test_pods_of_two_nodes_see_each_its_own_compute_node(cluster: RealCluster, pods: dict[str, Object]) -> None:
    for name, machine in cluster.machines.items():
        machine.tree.add_base(f"image of {name}")
        (process,) = cluster.processes(pods[name])
        seen = Path(f"/proc/{process}/root")

        (base,) = (seen / "var/lib/nova/instances/_base").iterdir()
        assert base.samefile(machine.tree.add_base(f"image of {name}"))
        assert (seen / "run/libvirt/libvirt-sock").samefile(machine.compute.socket)
        assert (seen / "var/lib/nova/instances").stat().st_uid == NOVA


def test_a_mount_that_comes_later_shows_in_a_running_pod(cluster: RealCluster, pods: dict[str, Object]) -> None:
    machine = cluster.machines["node-a"]
    (process,) = cluster.processes(pods["node-a"])
    later = machine.tree.instances_path / "later"
    later.mkdir()
    subprocess.run([*machine.kube.enter, "mount", "-t", "tmpfs", "none", str(machine.tree.seen(later))], check=True)

    assert Path(f"/proc/{process}/root{machine.tree.seen(later)}").is_mount()
    assert not later.is_mount()


def remains(root: Path) -> list[str]:
    """What is left of a node on this machine."""
    left = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{root.name}")]
    left += [str(path) for path in Path("/run/basekeeper-lab").glob(f"{root.name}*")]
    return left + [str(root)] * root.exists()


def start_elsewhere() -> tuple[subprocess.Popen[str], Path, list[int]]:
    other = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=TOP, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    root, *processes = other.stdout.readline().split()
    assert remains(Path(root))
    return other, Path(root), [int(process) for process in processes]


def test_nothing_is_left_of_a_cluster_whose_owner_was_killed() -> None:
    other, root, processes = start_elsewhere()
    with other:
        other.send_signal(signal.SIGKILL)

    eventually(lambda: all(has_ended(process) for process in processes), "kubelet and containerd end")
    eventually(lambda: not remains(root), "cgroups and directories go")


def test_a_demonstration_that_is_interrupted_says_so_in_a_sentence() -> None:
    # Whoever runs the tests in the background ignores the signal, and so would all that they start.
    command = ["env", "--default-signal=INT", sys.executable, str(TOP / "scripts/cluster_demo.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        said = ""
        while "ready after" not in said:
            said += demo.stdout.readline()
        demo.send_signal(signal.SIGINT)
        said = demo.stdout.read()
    assert demo.returncode == 1
    assert "cluster-demo: stopped; everything has ended and is gone" in said
    assert "Traceback" not in said


def test_what_a_killed_keeper_leaves_goes_with_the_next_start() -> None:
    other, root, processes = start_elsewhere()
    keeper, *inside = processes
    with other:
        os.kill(keeper, signal.SIGKILL)
        other.send_signal(signal.SIGKILL)
    eventually(lambda: all(has_ended(process) for process in inside), "kubelet and containerd end")
    assert remains(root)

    kube_node.clean_up()

    assert not remains(root)


def test_a_node_that_lives_is_left_alone(cluster: RealCluster) -> None:
    kube_node.clean_up()

    assert all(machine.kube.processes() for machine in cluster.machines.values())
    assert cluster.control.api("GET", "/api/v1/nodes/node-a")["spec"].get("taints") is None
