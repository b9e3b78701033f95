"""A fleet as a real Prometheus sees it, by the scrape configuration and the rules that come with the project.

Pods are found by Prometheus' own discovery in the real API server. There is no kubelet: that a pod's address is
loopback, where its program runs as a process, is said by hand (`ControlPlane.add_pod`).
"""

from collections.abc import Callable
from typing import Any

import yaml

from lab.daemons import free_ports
from lab.prometheus import Prometheus, Series
from tests.cluster.fleet import DEPLOY, LABELS, NAMESPACE, Fleet, Program, eventually

RULES = DEPLOY / "alerts/basekeeper.yaml"
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
    (port,) = free_ports(1)
    labels = LABELS | {"app.kubernetes.io/component": "controller"}
    account = "basekeeper-controller"
    fleet.cluster.add_node(CONTROLLER_NODE)
    fleet.cluster.add_pod(
        "controller", NAMESPACE, node=CONTROLLER_NODE, labels=labels, service_account=account, port=port
    )
    return fleet.start_controller(port=port)


def add_agent(fleet: Fleet, node: str, labels: dict[str, str] | None = None) -> Program:
    """Start a node's agent where its pod can be found."""
    (port,) = free_ports(1)
    fleet.add_node(node, labels, port=port)
    return fleet.start_agent(node, port=port)


def seen(
    prometheus: Prometheus, expression: str, wanted: Callable[[list[Series]], Any] = bool, timeout: float = 60.0
) -> list[Series]:
    """Wait until an expression has series, or those that are wanted, and give them back."""
    return list(
        eventually(lambda: (found := prometheus.query(expression)) and wanted(found) and found, expression, timeout)
    )
