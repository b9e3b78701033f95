"""What a user does with the chart, step by step, on a real cluster.

`make cluster-demo` tells it, and `tests/kubelet` checks it. Every step does something as a user would, waits until the
cluster shows that it has worked, and returns what there is to see. A step that does not work raises a `LabError`.
"""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lab.compute_node import LabError
from lab.control_plane import ApiError, Object
from lab.domain_xml import Disk, NovaMetadata, domain_xml
from lab.libvirt_files import NOVA
from lab.nova_tree import DAY
from lab.real_cluster import RealCluster

CHART = Path(__file__).parent.parent / "deploy/helm/basekeeper"
OPENSTACK_HELM = CHART / "values_overrides/openstack-helm.yaml"
RELEASE = NAMESPACE = "basekeeper"
POLICY = "compute"
TIMEOUT = 180.0
# Only for speed: a fleet wants its first passes spread, and nova the time to write down what it has begun.
VALUES = ("image.tag=dev", "image.pullPolicy=Never", "agent.startJitter=0s", "agent.spawnGrace=0s")
_PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
_DAEMON_SET = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{RELEASE}-agent"
_RESOURCES = "/apis/basekeeper.io/v1alpha1"
_MERGE = "application/merge-patch+json"
_MIB = 1024 * 1024


@dataclass
class Furniture:
    """What lies in a node's cache."""

    needed: dict[Path, str] = field(default_factory=dict)
    """Bases of instances, and what they hold."""
    unused: list[Path] = field(default_factory=list)


@dataclass(frozen=True)
class Replacement:
    """An agent's pod that an upgrade brought."""

    node: str
    created: datetime
    ready: datetime


class ClusterStory:
    """The steps, in the order in which they are meant to be taken."""

    def __init__(self, cluster: RealCluster) -> None:
        """Tell it on a cluster that has the image."""
        self.cluster = cluster
        self.furniture = {name: Furniture() for name in cluster.machines}
        self._spec: Object = {
            "mode": "Audit",
            "interval": "1m",
            "limits": {"maxPercent": 100},
            "rollout": {"maxNodesPerInterval": "100%"},
        }

    # --- the compute nodes -------------------------------------------------------------------------------------

    def furnish(self) -> None:
        """Give each node a running instance, one that is shut off, and a base that nothing needs."""
        for name, machine in self.cluster.machines.items():
            furniture = self.furniture[name]
            for number, state in enumerate(("running", "shut off"), 1):
                image = str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{state} on {name}"))
                base = machine.tree.add_base(image, size=16 * _MIB, age=9 * DAY, seed=number)
                instance = str(uuid.uuid4())
                disk = Disk(machine.tree.seen(machine.tree.add_overlay(instance, base)))
                furniture.needed[base] = _digest(base)
                machine.give_to_nova()
                metadata = NovaMetadata(image=image)
                machine.compute.define(
                    domain_xml(f"instance-{number:08x}", uuid=instance, disks=[disk], metadata=metadata)
                )
                if state == "running":
                    machine.compute.start(instance)
            self.add_unused(name, "2012")

    def add_unused(self, name: str, image: str) -> Path:
        """Give a node a base that nothing has needed for a month."""
        machine = self.cluster.machines[name]
        base = machine.tree.add_base(image, size=64 * _MIB, age=30 * DAY, seed=7)
        machine.give_to_nova()
        self.furniture[name].unused.append(base)
        return base

    def check_needed(self) -> int:
        """Count the bases that instances need, all of which are there, byte for byte."""
        needed = {path: digest for furniture in self.furniture.values() for path, digest in furniture.needed.items()}
        for path, digest in needed.items():
            if not path.exists() or _digest(path) != digest:
                raise LabError(f"a needed base has changed or gone: {path}")
        for name, machine in self.cluster.machines.items():
            if len(machine.compute.domains(all_of_them=False)) != 1:
                raise LabError(f"the running instance of {name} runs no longer")
        return len(needed)

    def quarantined(self, name: str) -> list[Path]:
        """The files in a node's quarantine."""
        quarantine = self.cluster.machines[name].tree.base_dir / ".basekeeper/quarantine"
        return sorted(path for path in quarantine.glob("*/*") if path.name != "entry.json")

    # --- the release -------------------------------------------------------------------------------------------

    def install(self, *overrides: Path, helm: str = "helm4") -> None:
        """Install the chart with these files of values, and wait until every pod is ready."""
        settings = [word for file in overrides for word in ("--values", str(file))]
        settings += [word for value in VALUES for word in ("--set", value)]
        self._helm("install", str(CHART), "--create-namespace", *settings, helm=helm)
        names = set(self.cluster.machines)
        wait_until(lambda: {pod["spec"]["nodeName"] for pod in self.pods("agent") if _ready_since(pod)} == names,
                   "an agent is ready on every node")  # fmt: skip
        wait_until(lambda: all(_ready_since(pod) for pod in self.pods("controller")), "the controller is ready")

    def test(self) -> str:
        """Run `helm test`, and return what its pods say."""
        return self.cluster.helm("test", RELEASE, "--namespace", NAMESPACE, "--logs")

    def upgrade(self, setting: str) -> tuple[list[Replacement], int]:
        """Change a value of the agents; return the new pods in their order, and how many agents were ready at least."""
        before = {pod["metadata"]["uid"] for pod in self.pods("agent")}
        fewest = len(before)
        self._helm("upgrade", str(CHART), "--reuse-values", "--set", setting)

        def replaced() -> bool:
            nonlocal fewest
            status = self.cluster.control.api("GET", _DAEMON_SET)["status"]
            fewest = min(fewest, status.get("numberReady", 0))
            pods = self.pods("agent")
            return (
                len(pods) == len(before)
                and not any(pod["metadata"]["uid"] in before for pod in pods)
                and all(_ready_since(pod) for pod in pods)
            )

        wait_until(replaced, "every agent is replaced")
        pods = [
            Replacement(pod["spec"]["nodeName"], _time(pod["metadata"]["creationTimestamp"]), _time(_ready_since(pod)))
            for pod in self.pods("agent")
        ]
        return sorted(pods, key=lambda pod: pod.created), fewest

    def upgrade_definition(self) -> str:
        """Upgrade to a chart whose definition shows one more column, and return what kubectl shows then."""
        chart = self.cluster.control.root / "next-chart"
        shutil.copytree(CHART, chart, dirs_exist_ok=True)
        definition = chart / "files/crds/basekeeper.io_imagecachepolicies.yaml"
        columns = "additionalPrinterColumns:\n"
        column = "        - {name: Priority, type: integer, jsonPath: .spec.priority}\n"
        text = definition.read_text()
        if columns not in text:
            raise LabError(f"{definition.name} has no columns to add one to")
        definition.write_text(text.replace(columns, columns + column, 1))
        self._helm("upgrade", str(chart), "--reuse-values")
        shown: str = wait_until(
            lambda: (table := self.show("icp")).count("PRIORITY") and table, "the definition has a new column"
        )
        return shown

    def uninstall(self) -> str:
        """Uninstall the release, wait until its pods have gone, and return what Helm says that it has kept."""
        said = self.cluster.helm("uninstall", RELEASE, "--namespace", NAMESPACE)
        wait_until(lambda: not self.pods("agent") and not self.pods("controller"), "the pods go")
        return said

    # --- the policy --------------------------------------------------------------------------------------------

    def apply(self, **changes: Any) -> None:
        """Apply the policy with some fields changed, and wait until every node follows it."""
        self._spec |= changes
        manifest = {
            "apiVersion": "basekeeper.io/v1alpha1",
            "kind": "ImageCachePolicy",
            "metadata": {"name": POLICY},
            "spec": self._spec,
        }
        self.cluster.control.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
        wait_until(self._is_everywhere, f"every node follows the policy with {changes or 'its first settings'}")

    def wait_for_quarantine(self, files: int) -> None:
        """Wait until the policy's status counts so many files in the quarantines of all nodes."""
        wait_until(
            lambda: self.policy()["status"]["totals"]["quarantinedFiles"] == files, f"{files} files are quarantined"
        )

    def make_pass(self, name: str) -> None:
        """Ask a node for a pass and wait until it has made one."""
        before = self.cache(name)["status"]["lastPass"]
        patch = {"metadata": {"annotations": {"basekeeper.io/run-now": str(time.time())}}}
        self.cluster.control.api("PATCH", f"{_RESOURCES}/nodeimagecaches/{name}", patch, content_type=_MERGE)
        wait_until(lambda: self.cache(name)["status"]["lastPass"] != before, f"{name} makes a pass")

    def hold(self, name: str) -> tuple[Path, Object]:
        """Let a disk that only root can read appear on a node; return it, and the hold that it causes."""
        machine = self.cluster.machines[name]
        disk = machine.tree.add_overlay(str(uuid.uuid4()), next(iter(self.furniture[name].needed)))
        machine.give_to_nova()
        os.chown(disk, 0, 0)
        disk.chmod(0o600)
        self.make_pass(name)
        holds: list[Object] = wait_until(lambda: self.cache(name)["status"].get("holds"), "the node reports a hold")
        return disk, holds[0]

    def release(self, name: str, disk: Path) -> None:
        """Do what the hold asks for, and wait until it has gone."""
        os.chown(disk, NOVA, NOVA)
        self.make_pass(name)
        wait_until(lambda: not self.cache(name)["status"].get("holds"), "the hold goes")

    # --- what there is to see ----------------------------------------------------------------------------------

    def policy(self) -> Object:
        """The policy as the server has it."""
        return dict(self.cluster.control.api("GET", f"{_RESOURCES}/imagecachepolicies/{POLICY}"))

    def cache(self, name: str) -> Object:
        """A node's object as the server has it."""
        return dict(self.cluster.control.api("GET", f"{_RESOURCES}/nodeimagecaches/{name}"))

    def show(self, *kinds: str) -> str:
        """What kubectl shows of these kinds."""
        return self.cluster.control.kubectl("get", ",".join(kinds)).stdout

    def pods(self, component: str) -> list[Object]:
        """The agents' pods, or the controller's."""
        pods = self.cluster.control.api("GET", f"{_PODS}?labelSelector=app.kubernetes.io/component={component}")
        return list(pods["items"])

    def metrics(self, name: str) -> dict[str, float]:
        """What the agent of a node tells Prometheus; by series."""
        (pod,) = (pod for pod in self.pods("agent") if pod["spec"]["nodeName"] == name)
        page = f"{_PODS}/{pod['metadata']['name']}:9478/proxy/metrics"
        lines = self.cluster.control.kubectl("get", "--raw", page).stdout.splitlines()
        series = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {key: float(value) for key, _, value in series}

    def diagnosis(self) -> str:
        """What to read when a step has failed."""
        kubectl = self.cluster.control.kubectl
        said = [kubectl("get", "pods", "--all-namespaces", "--output", "wide", check=False).stdout]
        said.append(kubectl("get", "events", "--all-namespaces", check=False).stdout[-4000:])
        for component in ("agent", "controller"):
            logs = ("logs", "--namespace", NAMESPACE, "--prefix", "--tail=20", "--selector")
            said.append(kubectl(*logs, f"app.kubernetes.io/component={component}", check=False).stdout)
        said.append(kubectl("get", "icp,nic", "--output", "yaml", check=False).stdout[-12000:])
        return "\n".join(said)

    # --- inside ------------------------------------------------------------------------------------------------

    def _helm(self, verb: str, chart: str, *options: str, helm: str = "helm4") -> None:
        self.cluster.helm(verb, RELEASE, chart, "--namespace", NAMESPACE, *options, name=helm)

    def _is_everywhere(self) -> bool:
        policy = self.policy()
        if policy["status"]["observedGeneration"] != policy["metadata"]["generation"]:
            return False
        return _conditions(policy).get("Ready") == "True"


def wait_until(check: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
    """Wait until `check` gives something true, and give that back."""
    deadline = time.monotonic() + timeout
    while True:
        last: object = None
        try:
            if found := check():
                return found
        except (KeyError, ApiError, OSError) as error:
            last = error
        if time.monotonic() > deadline:
            raise LabError(f"not within {timeout:.0f} s: {what}{f'; last: {last!r}' if last else ''}")
        time.sleep(0.1)


def _conditions(found: Mapping[str, Any]) -> dict[str, str]:
    return {item["type"]: item["status"] for item in found["status"].get("conditions", ())}


def _ready_since(pod: Object) -> str:
    for condition in pod["status"].get("conditions", ()):
        if condition["type"] == "Ready" and condition["status"] == "True":
            return str(condition["lastTransitionTime"])
    return ""


def _time(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
