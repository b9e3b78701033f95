"""`basekeeper quarantine`: see what was removed, put it back, or let it go now."""

from typing import Annotated, Any

import typer
from rich.text import Text

from basekeeper.cache import by_hand, deeds, engine
from basekeeper.cache.acts import Action
from basekeeper.cache.by_hand import NoSuchEntry, Ordered
from basekeeper.cache.settings import Host, Policy
from basekeeper.cache.verdicts import Reason

from . import document, interrupts, tables
from . import options as o
from .errors import CommandFailed, Exit, UsageError
from .passes import progress_shown

app = typer.Typer(no_args_is_help=True, help="See what was removed, put it back, or let it go now.")

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME...]", help="File names, or entries as `quarantine list` shows them."),
]
Everything = Annotated[bool, typer.Option("--all", help="All of them.")]
For = Annotated[str, typer.Option("--for", metavar="DURATION", help="For how long the restored names are pinned.")]


@app.command("list")
@o.on_host
def list_entries(
    host: Host,
    output: o.OutputFormat = None,
) -> None:
    """List what was removed and waits to be purged. Changes nothing."""
    try:
        entries = by_hand.quarantined(host)
    except engine.PassFailed as error:
        raise CommandFailed(str(error)) from error
    form = o.output(output)
    if form is o.Output.TABLE:
        tables.print_entries(entries)
    else:
        document.write(document.a_list("QuarantineList", [document.of_entry(entry) for entry in entries]), form)


@app.command()
@o.on_host
def restore(
    host: Host,
    names: Names = None,
    everything: Everything = False,
    keep_for: For = "168h",
    output: o.OutputFormat = None,
) -> None:
    """Put removed files back under their names, never over another file, and pin them for a while.

    `--all` is the last step of an uninstall.
    """
    wanted = _wanted(names, everything)
    pin_for = _days_too(keep_for)
    with interrupts.between_files() as stop:
        try:
            ordered = by_hand.restore(host, wanted, pin_for, stop=stop)
        except (engine.PassFailed, NoSuchEntry) as error:
            raise CommandFailed(str(error)) from error
        _finish(ordered, o.output(output), stop)


@app.command()
@o.on_host
def purge(
    host: Host,
    policy: Policy,
    names: Names = None,
    everything: Everything = False,
    output: o.OutputFormat = None,
) -> None:
    """Delete removed files for good now, due or not: all of them, or those named.

    A purge is a removal: it needs complete evidence, and what something needs goes back instead.
    """
    wanted = None if everything or not names else names
    with interrupts.between_files() as stop:
        try:
            with progress_shown() as progress:
                ordered = by_hand.purge(host, policy, wanted, progress, stop=stop)
        except (engine.PassFailed, NoSuchEntry) as error:
            raise CommandFailed(str(error)) from error
        _finish(ordered, o.output(output), stop)


def _wanted(names: list[str] | None, everything: bool) -> list[str] | None:
    if everything == bool(names):
        raise UsageError("quarantine restore: give the names to restore, or --all for all of them")
    return None if everything else names


def _days_too(text: str) -> float:
    """A duration that may also be given in days, as people count pins."""
    if text.endswith("d") and text[:-1].isdigit():
        return int(text[:-1]) * 86400.0
    return o.duration("--for", text)


def _finish(ordered: list[Ordered], form: o.Output, stopped: deeds.Stop) -> None:
    """Say what became of each file, and leave with the status that fits."""
    if form is o.Output.TABLE:
        for item in ordered:
            tables.console().print(Text(f"{item.entry.name}  {_said(item)}"))
        if not ordered:
            tables.console().print("the quarantine is empty")
    else:
        document.write(document.a_list("QuarantineResult", [_document(item) for item in ordered]), form)
    failed = [item.done.error for item in ordered if item.done and item.done.error]
    if stopped():
        failed.insert(0, "interrupted between two files; give the order again for the rest")
    if failed:
        raise CommandFailed("; ".join(failed))
    held = any(item.done is None or item.done.action is Action.SKIPPED for item in ordered)
    raise typer.Exit(Exit.HELD if held else Exit.DONE)


def _said(item: Ordered) -> str:
    if item.done is None:
        return f"held: {item.held}"
    doubt = item.done.doubt
    return item.done.action.value + (f": {doubt.message}" if doubt else _remark(item))


def _remark(item: Ordered) -> str:
    """What an operator should know who puts a file back."""
    back = item.done is not None and item.done.action is Action.RESTORED
    corrupt = back and item.entry.reason == Reason.CORRUPT.value
    return "; it is corrupt: it goes again when its pin ends, unless something uses it" if corrupt else ""


def _document(item: Ordered) -> dict[str, Any]:
    told = document.of_entry(item.entry)
    if item.done is None:
        return {**told, "verdict": "Hold", "message": item.held}
    doubt = {"message": item.done.doubt.message} if item.done.doubt else {}
    if remark := _remark(item):
        doubt = {"message": remark.removeprefix("; ")}
    error = {"error": item.done.error} if item.done.error else {}
    return {**told, "action": item.done.action.value, **doubt, **error}
