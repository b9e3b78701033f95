"""What `agent` and `controller` have in common: how to reach the API server, where to listen, how to log and to end.

The libraries of the cluster are imported when one of the two runs: nobody else should wait for them.
"""

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from basekeeper.cluster import logs
from basekeeper.cluster.logs import LogFormat

from .errors import UsageError

if TYPE_CHECKING:
    from basekeeper.cluster.connection import Connection

_PANEL = "In the cluster"
Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        metavar="FILE",
        help="How to reach the API server.  "
        "[default: $KUBECONFIG, else the pod's service account, else ~/.kube/config]",
        rich_help_panel=_PANEL,
    ),
]
Listen = Annotated[
    str,
    typer.Option(
        "--listen", metavar="ADDRESS", help="Where /livez, /readyz and /metrics are served.", rich_help_panel=_PANEL
    ),
]
Log = Annotated[LogFormat, typer.Option("--log-format", help="How to write the log.", rich_help_panel=_PANEL)]
Verbose = Annotated[bool, typer.Option("--verbose", help="Log what the libraries say, too.", rich_help_panel=_PANEL)]


def connect(kubeconfig: Path | None) -> "Connection":
    """The connection to the API server. Raises UsageError."""
    from basekeeper.cluster import connection  # noqa: PLC0415 (see above)

    try:
        return connection.Connection(kubeconfig)
    except connection.NoConnection as error:
        raise UsageError(str(error)) from error


def begin(form: LogFormat, *, verbose: bool) -> threading.Event:
    """Log from now on, and take signals as wishes: answers an event that the first one sets.

    A second one ends the process at once; the next start puts right what was under way.
    """
    logs.set_up(form, verbose=verbose)
    stop = threading.Event()

    def wish(_number: int, _frame: object) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        stop.set()

    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    for number in signals:
        signal.signal(number, wish)
    return stop
