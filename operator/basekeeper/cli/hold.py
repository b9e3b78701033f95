"""`basekeeper hold`: what holds removals, and the operator's word that it is harmless."""

import time
from typing import Annotated

import typer

from basekeeper.cache import by_hand, engine
from basekeeper.cache.quarantine_plan import Hold
from basekeeper.cache.settings import Host, Policy
from basekeeper.cache.verdicts import Reason

from . import document, streams, tables
from . import options as o
from .errors import CommandFailed, Exit

app = typer.Typer(no_args_is_help=True, help="See what holds removals, and say that it is harmless.")

Target = Annotated[str, typer.Argument(metavar="PATH", help="As `hold list` shows it, or absolute.")]
Why = Annotated[str, typer.Option("--reason", help="Why it is harmless; kept with the word.")]
For = Annotated[str | None, typer.Option("--for", metavar="DURATION", help="For how long.  [default: while it stays]")]


@app.command("list")
@o.on_host
def list_holds(
    host: Host,
    policy: Policy,
    output: o.OutputFormat = None,
) -> None:
    """List everything that holds removals now, and every unknown that could. Changes nothing."""
    try:
        report, look = engine.judge_now(host, policy)
    except engine.PassFailed as error:
        raise CommandFailed(str(error)) from error
    told = {hold.path for hold in report.holds if hold.reason is Reason.UNKNOWN_USAGE}
    could = [Hold(Reason.UNKNOWN_USAGE, item.message, item.path) for item in look.plan.unknown if item.path not in told]
    holds = [*report.holds, *could]
    form = o.output(output)
    if form is o.Output.TABLE:
        tables.print_holds(holds)
    else:
        document.write(document.a_list("HoldList", [document.of_hold(hold) for hold in holds]), form)
    raise typer.Exit(Exit.HELD if holds else Exit.DONE)


@app.command()
@o.on_host
def acknowledge(
    host: Host,
    policy: Policy,
    path: Target,
    reason: Why = "",
    keep_for: For = None,
) -> None:
    """Say that what cannot be read at PATH is harmless, for as long as it stays as it is now.

    Written into the ledger of this host; for a whole cluster use `acknowledged` in the policy. A reference that
    can be read is never waived.
    """
    until = None if keep_for is None else time.time() + o.duration("--for", keep_for)
    try:
        unknown = by_hand.acknowledge(host, policy, path, reason, until)
    except (engine.PassFailed, by_hand.NothingUnknown) as error:
        raise CommandFailed(str(error)) from error
    streams.say(f"acknowledged while it stays as it is: {unknown.path}")
