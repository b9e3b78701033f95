#!/usr/bin/env python3
"""`make cluster-demo`: the chart on a real cluster with two kubelets, from install to uninstall, in a few minutes.

Builds the image, starts a control plane and two nodes with containerd, kubelet and libvirtd of their own, and then does
what a cluster administrator does. `tests/kubelet` takes the same steps. Everything ends with it, nothing of this host
is changed, and a second one can run beside it.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lab.cluster_story import NAMESPACE, OPENSTACK_HELM, RELEASE, ClusterStory
from lab.compute_node import LabError
from lab.real_cluster import RealCluster

OUT = Console(highlight=False)
STARTED = time.monotonic()
NODES = ("node-a", "node-b")
SERIES = ("basekeeper_passes_total", "basekeeper_removed", "basekeeper_cache_bytes", "basekeeper_quarantine_bytes")


def main() -> None:
    """Bring it up, tell the story, take it down."""
    with begin() as cluster:
        chapter("The image", "Built from this tree by buildah, without a registry, and loaded into both nodes.")
        show(cluster.build_and_load())
        story = ClusterStory(cluster)
        story.furnish()
        tell("each node has a running machine, one that is shut off, and a base that nothing needs")
        install(story)
        follow(story)
        explain(story)
        enforce(story)
        upgrade(story)
        reinstall(story)
        drain(story)
    OUT.print(f"[dim]{time.monotonic() - STARTED:.0f} s; everything has ended and is gone[/]")


@contextmanager
def begin() -> Iterator[RealCluster]:
    """Start the cluster; what is missing for one ends the demonstration with a sentence."""
    chapter("A cluster", "Control plane, two kubelets, two libvirtds: real ones, in namespaces of their own.")
    try:
        with RealCluster(*NODES) as cluster:
            tell(f"ready after {time.monotonic() - STARTED:.0f} s")
            show(cluster.control.kubectl("get", "nodes", "--output", "wide").stdout)
            yield cluster
    except LabError as error:
        raise SystemExit(f"cluster-demo: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit("cluster-demo: stopped; everything has ended and is gone") from None


def install(story: ClusterStory) -> None:
    """Install the chart and let it test itself."""
    chapter("Install", f"helm install {RELEASE} deploy/helm/basekeeper --namespace {NAMESPACE}")
    story.install()
    show(story.cluster.control.kubectl("get", "pods", "--namespace", NAMESPACE, "--output", "wide").stdout)


def follow(story: ClusterStory) -> None:
    """Apply a policy that only reports."""
    chapter(
        "A policy",
        "kubectl apply, then kubectl wait --for=condition=Ready icp/compute; it decides and removes nothing.",
    )
    story.apply(mode="Audit")
    show(story.show("icp", "nic"))
    command(f"helm test {RELEASE} --namespace {NAMESPACE} --logs")
    show("\n".join(line for line in story.test().splitlines() if line.startswith("ok ")))


def explain(story: ClusterStory) -> None:
    """Let something appear that cannot be read."""
    chapter("What cannot be read holds", "A disk appears on node-a that only root can read: any base might be its own.")
    disk, hold = story.hold("node-a")
    show(hold["message"])
    story.release("node-a", disk)
    tell("nova owns it now, and the hold has gone")


def enforce(story: ClusterStory) -> None:
    """Let it remove."""
    chapter("Enforce", "The same policy with mode: Enforce.")
    story.apply(mode="Enforce")
    story.wait_for_quarantine(len(NODES))
    show(story.show("icp", "nic"))
    for name in NODES:
        for file in story.quarantined(name):
            tell(f"{name}: {story.cluster.machines[name].tree.seen(file)}")
    command("curl -s http://POD:9478/metrics")
    metrics = story.metrics(NODES[0])
    show("\n".join(f"{key} {value:g}" for key, value in metrics.items() if key.startswith(SERIES) and value))
    tell(f"all {story.check_needed()} bases that machines need are there, byte for byte, and the machines run")
    tell(f"all of it, control plane, nodes, pods and machines, holds {story.cluster.memory() >> 20} MiB of memory")


def upgrade(story: ClusterStory) -> None:
    """Change a value, and a definition."""
    chapter("Upgrade", "helm upgrade --reuse-values --set agent.logFormat=json")
    pods, fewest = story.upgrade("agent.logFormat=json")
    for pod in pods:
        tell(f"{pod.node}: new agent made at {pod.created:%H:%M:%S}, ready at {pod.ready:%H:%M:%S}")
    tell(f"one node after the other: never fewer than {fewest} of {len(NODES)} agents were ready")
    command("helm upgrade to a chart whose definition of policies has one more column")
    show(story.upgrade_definition())


def reinstall(story: ClusterStory) -> None:
    """Uninstall and come back."""
    chapter("Uninstall, and think again", f"helm uninstall {RELEASE}")
    show(story.uninstall())
    show(story.show("icp"))
    kept = sum(len(story.quarantined(name)) for name in NODES)
    tell(f"the policy is still there, and so are {kept} files in the quarantines")
    story.add_unused("node-a", "2013")
    command(
        f"helm install {RELEASE} deploy/helm/basekeeper, this time by Helm 3 and with the values for openstack-helm"
    )
    story.install(OPENSTACK_HELM, helm="helm3")
    story.wait_for_quarantine(kept + 1)
    show(story.show("icp", "nic"))
    tell("it went on where it was, and removed what had become unused meanwhile")


def drain(story: ClusterStory) -> None:
    """Leave for good."""
    chapter("Leave for good", "quarantine: {drain: Restore} puts every file back, then helm uninstall.")
    story.apply(quarantine={"drain": "Restore"})
    story.wait_for_quarantine(0)
    show(story.show("icp", "nic"))
    story.uninstall()
    left = sum(len(story.quarantined(name)) for name in NODES)
    tell(f"files in the quarantines: {left}; needed bases that are whole: {story.check_needed()}")


def chapter(title: str, text: str) -> None:
    """Begin a part of the story."""
    OUT.print()
    OUT.print(Panel(Text.assemble((title, "bold"), f"  {text}"), expand=False))


def command(words: str) -> None:
    """Say what a user would type."""
    OUT.print(Text.assemble(("$ ", "bold cyan"), (words, "bold cyan")))


def show(text: str) -> None:
    """What a program said."""
    OUT.print(Text(text.rstrip(), style="dim"), soft_wrap=True)
    sys.stdout.flush()


def tell(line: str) -> None:
    """One step of the story."""
    OUT.print(f"[green]✓[/] {line}", soft_wrap=True)
    sys.stdout.flush()


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "150")
    main()
