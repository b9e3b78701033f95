"""`basekeeper check-cluster`: whether an installation does what it should; what `helm test` runs in its pods."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from . import in_cluster, streams
from . import options as o
from .controller import AGENTS, AgentSelector, Namespace, own_namespace
from .errors import CommandFailed, UsageError

if TYPE_CHECKING:
    from basekeeper.cluster.api import Api
    from basekeeper.cluster.check import Finding

app = typer.Typer(no_args_is_help=True, help="Check an installation in a cluster; changes nothing. `helm test` does.")

_PAUSE = 2.0
Within = Annotated[
    str,
    typer.Option("--within", metavar="DURATION", help="How long what is not so yet may take to become so."),
]
NodeName = Annotated[
    str | None, typer.Option("--node-name", envvar="NODE_NAME", help="The node that the token in use is bound to.")
]


@app.command()
def agents(
    namespace: Namespace = None,
    agent_selector: AgentSelector = AGENTS,
    within: Within = "0s",
    kubeconfig: in_cluster.Kubeconfig = None,
) -> None:
    """Check that the agent of every node that has one reaches libvirt and reads the cache, by what it reports.

    Exit status: 0 all do, 1 one does not, or cannot be asked, 2 wrong use.
    """
    from basekeeper.cluster import check  # noqa: PLC0415 (brings the Kubernetes client with it)

    where = namespace or own_namespace()
    _report(lambda api: check.agents(api, where, agent_selector), kubeconfig, within)


@app.command()
def isolation(
    node_name: NodeName = None,
    within: Within = "0s",
    kubeconfig: in_cluster.Kubeconfig = None,
) -> None:
    """Check, with an agent's own token and by dry runs, that it may write its node's status and no other node's.

    Exit status: 0 it is so, 1 it is not, or cannot be asked, 2 wrong use.
    """
    from basekeeper.cluster import check  # noqa: PLC0415 (see above)

    if not node_name:
        raise UsageError("--node-name is missing; give the node that the token is bound to")
    _report(lambda api: check.isolation(api, node_name), kubeconfig, within)


def _report(look: "Callable[[Api], list[Finding]]", kubeconfig: in_cluster.Kubeconfig, within: str) -> None:
    """Look until all is well or the time is over, and say what was seen last.

    Whatever is wrong may be wrong for a moment only: agents start, and admission takes a while to learn its policies.
    """
    from basekeeper.cluster.api import Api, ApiError  # noqa: PLC0415 (see above)
    from basekeeper.cluster.check import FIELD_MANAGER  # noqa: PLC0415

    deadline = time.monotonic() + o.duration("--within", within)
    api = Api(in_cluster.connect(kubeconfig), FIELD_MANAGER)
    while True:
        try:
            found, away = look(api), None
        except ApiError as error:
            found, away = [], str(error)
        wrong = [item for item in found if not item.good]
        if (away is None and not wrong) or time.monotonic() >= deadline:
            break
        time.sleep(_PAUSE)
    for item in found:
        streams.say(f"{'ok' if item.good else 'WRONG'}  {item.message}")
    if away is not None:
        raise CommandFailed(away)
    if wrong:
        raise CommandFailed(f"{len(wrong)} of {len(found)} checks failed")
