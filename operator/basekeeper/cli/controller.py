"""`basekeeper controller`: the program of the Deployment."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from basekeeper.cluster.logs import LogFormat

from . import in_cluster
from .errors import UsageError

if TYPE_CHECKING:
    from basekeeper.cluster.connection import Connection

AGENTS = "app.kubernetes.io/name=basekeeper,app.kubernetes.io/component=agent"
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        envvar="POD_NAMESPACE",
        help="Where the agents' pods are.  [default: the controller's own namespace, else basekeeper]",
    ),
]
AgentSelector = Annotated[
    str, typer.Option("--agent-selector", metavar="LABELS", help="The labels by which the agents' pods are known.")
]


def controller(
    namespace: Namespace = None,
    agent_selector: AgentSelector = AGENTS,
    kubeconfig: in_cluster.Kubeconfig = None,
    listen: in_cluster.Listen = ":9479",
    log_format: in_cluster.Log = LogFormat.TEXT,
    verbose: in_cluster.Verbose = False,
) -> None:
    """Tell every node what the policies want of it, and every policy what became of it, until told to stop.

    A node takes part from the moment an agent's pod is bound to it.

    Exit status: 0 told to stop, 1 failed, 2 wrong use.
    """
    if not agent_selector:
        raise UsageError("--agent-selector is empty; give labels such as app.kubernetes.io/component=agent")
    connection = in_cluster.connect(kubeconfig)
    stop = in_cluster.begin(log_format, verbose=verbose)
    _run(namespace or own_namespace(), agent_selector, connection, listen, stop)


def own_namespace() -> str:
    """The namespace of the pod that this runs in; `basekeeper` elsewhere."""
    try:
        return _OWN_NAMESPACE.read_text(encoding="ascii").strip()
    except OSError:
        return "basekeeper"


def _run(namespace: str, selector: str, connection: "Connection", listen: str, stop: threading.Event) -> None:
    from basekeeper.cluster.probes import CannotListen  # noqa: PLC0415
    from basekeeper.controller.program import Controller, Setup  # noqa: PLC0415 (brings kopf with it)

    try:
        program = Controller(Setup(namespace, selector, listen), connection)
    except CannotListen as error:
        raise UsageError(str(error)) from error
    program.run(stop)
