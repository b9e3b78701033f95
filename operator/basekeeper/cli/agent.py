"""`basekeeper agent`: the program of the DaemonSet."""

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from basekeeper.cache.settings import Host
from basekeeper.cluster.logs import LogFormat

from . import in_cluster
from . import options as o
from .errors import CommandFailed, UsageError

if TYPE_CHECKING:
    from basekeeper.cluster.connection import Connection

NodeName = Annotated[
    str | None,
    typer.Option("--node-name", envvar="NODE_NAME", help="The node that this agent keeps.  [default: the host name]"),
]
StartJitter = Annotated[
    str,
    typer.Option("--start-jitter", metavar="DURATION", help="The first pass begins at a random moment within this."),
]
Grace = Annotated[
    str,
    typer.Option(
        "--grace",
        metavar="DURATION",
        help="How long a pass may take to end between two files when the agent is told to stop; "
        "less than the pod's terminationGracePeriodSeconds.",
    ),
]


DiskCheck = Annotated[
    str,
    typer.Option(
        "--disk-check",
        metavar="DURATION",
        help="Where the policy has `pressure`: time between looks at how full the disk is, and between passes that "
        "make room on it; at least 1s.",
    ),
]


@o.as_program
def agent(
    host: Host,
    node_name: NodeName = None,
    start_jitter: StartJitter = "10s",
    grace: Grace = "25s",
    disk_check: DiskCheck = "30s",
    kubeconfig: in_cluster.Kubeconfig = None,
    listen: in_cluster.Listen = ":9478",
    log_format: in_cluster.Log = LogFormat.TEXT,
    verbose: in_cluster.Verbose = False,
) -> None:
    """Keep this node's cache as its NodeImageCache says, and report into it, until told to stop.

    Does nothing while no policy selects the node. While the API server is away it goes on under what it was last
    told; what it was told is in the ledger.

    Exit status: 0 told to stop, 1 failed, 2 wrong use.
    """
    if node_name == "":
        raise UsageError("--node-name is empty; give the node's name, or leave it out")
    host = replace(host, node=node_name or host.node)
    connection = in_cluster.connect(kubeconfig)
    within, patience = o.duration("--start-jitter", start_jitter), o.duration("--grace", grace)
    every = o.duration("--disk-check", disk_check)
    if every < 1:
        raise UsageError(f'--disk-check: expected a duration of at least 1s, got "{disk_check}"')
    stop = in_cluster.begin(log_format, verbose=verbose)
    _run(host, connection, listen, within, patience, every, stop)


def _run(
    host: Host,
    connection: "Connection",
    listen: str,
    within: float,
    patience: float,
    every: float,
    stop: threading.Event,
) -> None:
    from basekeeper.agent.program import Agent, Ended, Setup  # noqa: PLC0415 (brings kopf with it)
    from basekeeper.cluster.probes import CannotListen  # noqa: PLC0415

    try:
        program = Agent(Setup(host, listen, within, patience, every), connection)
    except CannotListen as error:
        raise UsageError(str(error)) from error
    try:
        program.run(stop)
    except Ended as error:
        raise CommandFailed(str(error)) from error
