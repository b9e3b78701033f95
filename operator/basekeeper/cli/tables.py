"""How plans, passes and lists look on a terminal. No rule lives here."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from basekeeper.cache.amounts import format_size
from basekeeper.cache.evidence import QuarantineEntry
from basekeeper.cache.moments import timestamp
from basekeeper.cache.orphans import Orphans
from basekeeper.cache.quarantine_plan import Hold
from basekeeper.cache.report import Outcome, Report, Row
from basekeeper.cache.verdicts import Verdict

from . import streams

_STYLE = {Verdict.KEEP: "green", Verdict.REMOVE: "red", Verdict.HOLD: "yellow", Verdict.FOREIGN: "dim"}
_OUTCOME = {
    Outcome.CLEAN: "nothing to do",
    Outcome.PLANNED: "some files may go",
    Outcome.ACTED: "done",
    Outcome.HELD: "removals are held",
    Outcome.FAILED: "failed",
}


def console() -> Console:
    """Where people read. In a pipe lines are as long as they need to be."""
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = 200
    return out


def print_report(report: Report) -> None:
    """A plan or a pass: the files, what holds, and the sum."""
    out = console()
    mode = report.policy.mode.value + (", suspended" if report.policy.suspend else "")
    policy = report.policy.name or "no policy: the defaults"
    out.print(
        f"[bold]{report.kind}[/] on {escape(report.node)} at {timestamp(report.time)}  ({escape(policy)}, {mode})"
    )
    if report.rows:
        out.print(_files(report.rows))
    for hold in report.holds:
        out.print(Text.assemble(("held  ", "yellow"), f"{hold.reason.value}: ", _at(hold.path), hold.message))
    for trip in report.trips:
        name = report.trip_name(trip) or f"{trip.cause.value}, which the first pass that sees it gives a name"
        out.print(Text.assemble(("breaker  ", "yellow"), f"{name}: ends with {trip.clears}"))
    for note in report.notes:
        out.print(Text.assemble(("note  ", "dim"), f"{note.about}: ", _at(note.path), note.message))
    if report.window is not None and report.window.open:
        until = report.window.until
        end = "and does not close within sight" if until is None else f"until {timestamp(until)}"
        out.print(Text.assemble(("window  ", "dim"), f"open {end}"))
    elif report.window is not None:
        out.print(Text.assemble(("window  ", "yellow"), f"{report.window.closed}"))
    if report.relief is not None:
        out.print(Text.assemble(("room  ", "dim"), f"{report.relief.state.value}: {report.relief.message}"))
    out.print(_sum(report))


def print_entries(entries: Sequence[QuarantineEntry]) -> None:
    """What lies in the quarantine."""
    out = console()
    if not entries:
        out.print("the quarantine is empty")
        return
    table = plain_table("name", "kind", "bytes", "removed", "due", "why", "entry")
    for entry in entries:
        table.add_row(
            escape(str(entry.name)),
            entry.name.kind.value,
            format_size(entry.reclaimable),
            timestamp(entry.removed_at),
            timestamp(entry.due_at),
            escape(entry.reason),
            escape(entry.id),
        )
    out.print(table)


def print_orphans(found: Orphans, now: float) -> None:
    """Directories without a domain, and what they hold back; `now` in Unix seconds."""
    out = console()
    if not found.directories:
        out.print("no orphaned directories")
        return
    listed = plain_table("directory", "kind", "unchanged", "bytes", "bases", "alone", "kept alone")
    for item in found.directories:
        listed.add_row(
            escape(item.path),
            item.kind.value,
            span(max(0.0, now - item.changed_at)),
            format_size(item.bytes),
            str(len(item.bases)),
            format_size(item.alone_bytes),
            escape(", ".join(map(short, item.alone)) or "-"),
        )
    out.print(listed)
    out.print(
        f"{len(found.directories)} directories, {format_size(found.bytes)}; bases that nothing else needs: "
        f"{len(found.kept_by or ())}, {format_size(found.alone_bytes)}"
    )


def print_holds(holds: Sequence[Hold]) -> None:
    """What holds removals."""
    out = console()
    if not holds:
        out.print("nothing is held")
    for hold in holds:
        out.print(Text.assemble((f"{hold.reason.value}  ", "yellow"), _at(hold.path), hold.message))


def span(seconds: float | None) -> str:
    """A duration as a column shows it."""
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f}{unit}"
    return f"{max(0, int(seconds))}s"


def _files(rows: Sequence[Row]) -> Table:
    table = plain_table("name", "kind", "verdict", "reason", "unused", "bytes", "why")
    for row in rows:
        done = f" {row.action.value}" if row.action else ""
        table.add_row(
            escape(short(row.name)),
            row.kind.value,
            Text(row.verdict.value + done, style=_STYLE[row.verdict]),
            row.reason.value,
            span(row.age),
            format_size(row.bytes),
            Text(row.error or _when(row)),
        )
    return table


def _when(row: Row) -> str:
    if row.removable_at is None:
        return row.message
    return f"{row.message} (in {span(max(0.0, row.removable_at - time.time()))})"


def short(name: str) -> str:
    """A hash takes the width of a terminal; its start and its suffix tell it as well."""
    if len(name) < 40 or "_" in name[:40] or "." in name[1:40]:
        return name
    return f"{name[:12]}{'…' if streams.can_show('…') else '..'}{name[40:]}"


def _sum(report: Report) -> str:
    parts = [
        f"{len(report.cached)} files, {format_size(sum(row.bytes for row in report.cached))}",
        f"{format_size(report.removable)} removable",
        f"{format_size(report.quarantined)} in quarantine",
    ]
    if report.reclaimed:
        parts.append(f"{format_size(report.reclaimed)} reclaimed")
    return f"[bold]{report.outcome.value}[/]: {_OUTCOME[report.outcome]}; " + ", ".join(parts)


def _at(path: str | None) -> str:
    return f"{path}: " if path else ""


def plain_table(*columns: str) -> Table:
    """A table without lines, whose column `bytes` is one of numbers."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        last = column == columns[-1]
        table.add_column(column, justify="right" if column == "bytes" else "left", overflow="fold", no_wrap=not last)
    return table
