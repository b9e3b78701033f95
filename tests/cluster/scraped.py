"""A fleet as a real Prometheus sees it, by the scrape configuration and the rules that come with the project.

Pods are found by Prometheus' own discovery in the real API server. There is no kubelet, so two things are said by hand
that a kubelet would say: that a pod's address is loopback, and on which port its program, a process here, listens.
"""

from collections.abc import Callable
from typing import Any

import yaml

from lab.prometheus import Prometheus, Series
from tests.cluster.fleet import DEPLOY, LABELS, NAMESPACE, Fleet, Program, eventually

RULES = DEPLOY / "alerts/basekeeper.yaml"
_MERGE = "application/merge-patch+json"
CONTROLLER_NODE = "control-a"


def config(fleet: Fleet) -> dict[str, Any]:
    """The scrape configuration of deploy/, with an account for outside the cluster, and looks every second."""
    made: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus/scrape.yaml").read_text(encoding="utf-8"))
    (job,) = made["scrape_configs"]
    job["scrape_interval"] = "1s"
    job["kubernetes_sd_configs"][0]["kubeconfig_file"] = str(fleet.cluster.admin)
    return {**made, "global": {"evaluation_interval": "1s"}, "rule_files": [str(RULES)]}


def add_controller(fleet: Fleet) -> Program:
    """Start a controller, and give it a pod."""
    fleet.cluster.add_node(CONTROLLER_NODE)
    labels = LABELS | {"app.kubernetes.io/component": "controller"}
    fleet.cluster.add_pod(
        "controller", NAMESPACE, node=CONTROLLER_NODE, labels=labels, service_account="basekeeper-controller"
    )
    program = fleet.start_controller()
    show(fleet, "controller", program)
    return program


def add_agent(fleet: Fleet, node: str, labels: dict[str, str] | None = None) -> Program:
    """Start a node's agent where its pod can be found."""
    fleet.add_node(node, labels)
    program = fleet.start_agent(node)
    show(fleet, f"agent-{node}", program)
    return program


def show(fleet: Fleet, pod: str, program: Program) -> None:
    """Say where a pod's program is, as the chart's annotations and a kubelet do."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}"
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": str(program.port)}
    fleet.cluster.api("PATCH", path, {"metadata": {"annotations": annotations}}, content_type=_MERGE)
    status = {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
    fleet.cluster.api("PATCH", f"{path}/status", {"status": status}, content_type=_MERGE)


def seen(
    prometheus: Prometheus, expression: str, wanted: Callable[[list[Series]], Any] = bool, timeout: float = 60.0
) -> list[Series]:
    """Wait until an expression has series, or those that are wanted, and give them back."""
    return list(
        eventually(lambda: (found := prometheus.query(expression)) and wanted(found) and found, expression, timeout)
    )
