"""`basekeeper orphans`: instance directories without a domain, and what they hold back. A report, and nothing else."""

from typing import Annotated

import typer

from basekeeper.cache import engine, leftovers, orphans
from basekeeper.cache.settings import Host, Policy

from . import document, tables
from . import options as o
from .errors import CommandFailed

OlderThan = Annotated[
    str,
    typer.Option(
        "--older-than",
        metavar="DURATION",
        help="Only directories in which nothing has changed for so long.",
    ),
]


@o.on_host
def list_orphans(
    host: Host,
    policy: Policy,
    older_than: OlderThan = "24h",
    output: o.OutputFormat = None,
) -> None:
    """List instance directories without a domain, the bases that they need, and those that nothing else needs.

    Left by deletions, resizes, evacuations and builds that did not end. Changes nothing, and no pass removes them:
    ask nova about each before you do. Where it is not known which directories have a domain, nothing is listed.

    Exit status: 0 done, 1 failed or not known, 2 wrong use or a bad policy.
    """
    unchanged_for = o.duration("--older-than", older_than)
    try:
        _, look = engine.judge_now(host, policy)
    except engine.PassFailed as error:
        raise CommandFailed(str(error)) from error
    left = leftovers.measured(look.usage)
    found = orphans.judge(look.inventory, look.usage, left, policy, look.memory, look.now, unchanged_for)
    if found.unknown is not None:
        raise CommandFailed(found.unknown)
    form = o.output(output)
    if form is o.Output.TABLE:
        tables.print_orphans(found, look.now.wall)
    else:
        listed = document.a_list("OrphanList", [document.of_orphan(item) for item in found.directories])
        totals = {"directories": len(found.directories), "bytes": found.bytes, "aloneBytes": found.alone_bytes}
        document.write({**listed, "totals": totals}, form)
