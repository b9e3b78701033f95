"""`basekeeper explain`: why is this file still here, and when will it go?"""

import os
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.text import Text

from basekeeper.cache import engine
from basekeeper.cache.amounts import format_size, some
from basekeeper.cache.holds import unknown_about
from basekeeper.cache.look import Look
from basekeeper.cache.moments import timestamp
from basekeeper.cache.names import Name, display, from_display, original_of, parse
from basekeeper.cache.orphans import Orphans
from basekeeper.cache.report import Acts, Report, Row, rows_of
from basekeeper.cache.settings import Host, Policy
from basekeeper.cache.verdicts import MEANING, WHAT_NEXT, Verdict
from basekeeper.cache.wholeness import Finding, Wholeness
from basekeeper.resources.fields import is_uuid

from . import document, tables
from . import options as o
from .errors import CommandFailed, Exit, UsageError

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME|UUID...", help="File names in the cache, image ids, or instance ids.", show_default=False
    ),
]


@dataclass(frozen=True)
class _Explained:
    """One file and everything that is known for or against it."""

    row: Row
    evidence: tuple[str, ...]


_NOVAS, _OURS = "nova's last touch", "basekeeper's own touch"


@o.on_host
def explain(
    host: Host,
    policy: Policy,
    words: Words,
    output: o.OutputFormat = None,
) -> None:
    """Say why a file is kept or goes: each piece of evidence, when it may go, what would change that.

    An image's id finds its files, an instance's id the files that its disks need. Changes nothing.
    """
    if "" in words:
        raise UsageError("explain: a name is empty; give file names, image ids or instance ids")
    try:
        report, look = engine.judge_now(host, policy)
    except engine.PassFailed as error:
        raise CommandFailed(str(error)) from error
    rows = (*rows_of(look.plan, Acts()), *_waiting(look))
    found = [_Explained(row, _evidence(look, row, report)) for word in words for row in _matching(word, rows)]
    form = o.output(output)
    if form is o.Output.TABLE:
        for item in found:
            _print(item)
    else:
        items = [_document(item) for item in found]
        document.write(document.a_list("Explanation", items), form)
    if missing := [word for word in words if not _matching(word, rows)]:
        raise CommandFailed("; ".join(_absent(word, look) for word in missing))
    raise typer.Exit(Exit.HELD if any(item.row.verdict is Verdict.HOLD for item in found) else Exit.DONE)


def _waiting(look: Look) -> tuple[Row, ...]:
    """Rows for what waits in the quarantine, which a plan has nothing to say about."""
    told = {row.entry for row in rows_of(look.plan, Acts())}
    return tuple(
        Row(
            name=str(item.entry.name),
            kind=item.entry.name.kind,
            verdict=Verdict.KEEP,
            reason=item.reason,
            message=item.message,
            bytes=item.entry.reclaimable,
            users=item.users,
            removable_at=item.entry.due_at,
            entry=item.entry.id,
        )
        for item in look.plan.entries
        if item.entry.id not in told
    )


def _matching(word: str, rows: tuple[Row, ...]) -> list[Row]:
    """The rows that a word means: a file's name, an entry's id, an image's files, or what an instance uses.

    A name may be as we show it or, as a shell completes it, the file's own bytes.
    """
    names = (word, display(os.fsencode(word)))
    named = [row for row in rows if row.name in names or row.entry == word]
    if named or not is_uuid(word):
        return named
    image = original_of(word.lower())
    of_image = [row for row in rows if parse(from_display(row.name)).image == image]
    return of_image or [row for row in rows if any(word.lower() in user for user in row.users)]


def _absent(word: str, look: Look) -> str:
    name = original_of(word.lower()) if is_uuid(word) else from_display(word)
    users = look.usage.by_name.get(name, ())
    if users:
        return f"{word}: {display(name)} is not in the cache, although {users[0].who} needs it"
    shown = display(name) if name == os.fsencode(word) else word
    return f"{shown}: no file of that name or image is cached or quarantined, and no instance of that id uses one"


def _kept_alone(orphans: Orphans, name: Name) -> list[str]:
    keepers = (orphans.kept_by or {}).get(name.raw, ())
    if len(keepers) < 2:
        return [f"kept alone by the orphaned directory {one}: see `basekeeper orphans`" for one in keepers]
    return [f"kept by nothing but orphaned directories, {some(keepers, 3)}: see `basekeeper orphans`"]


def _evidence(look: Look, row: Row, report: Report) -> tuple[str, ...]:
    """Each thing that speaks for or against the file, in the order in which judgement asks."""
    usage, memory = look.usage, look.memory
    name: Name = parse(from_display(row.name))
    lines = [f"needed by {user}" for user in row.users]
    if name.image and (made := usage.images.get(name.image)):
        lines += [f"{user.who} was made from its image" for user in made]
    if name.lock_name in usage.nova_locks:
        lines.append("nova's lock for its name is held")
    file = next((item for item in look.inventory.files if str(item.name) == row.name), None)
    if file is not None and file.inode in usage.qemu_locks:
        lines.append("a running qemu holds its image lock on it")
    if file is not None and row.entry is None:
        ours = memory.nova.stamped.get(name.raw) == file.mtime
        lines.append(f"time stamp {timestamp(file.mtime)} ({_OURS if ours else _NOVAS}, not a change of content)")
        lines += _kept_alone(report.orphans, name)
    if (used := memory.last_used.get(name.raw)) is not None:
        lines.append(f"last seen in use {timestamp(used)}")
    if file is not None and row.entry is None and not memory.has_seen_in_use(name.raw, file.inode[1]):
        lines.append("this file was never seen in use" if used is not None else "never seen in use")
    if memory.ages_since is not None:
        lines.append(f"no age counts from before {timestamp(memory.ages_since)}")
    if (pin := memory.pins.get(name.raw)) is not None:
        lines.append(f"pinned by hand until {timestamp(pin)}")
    lines += _content(report.wholeness, name) if row.entry is None else []
    lines += [
        f"the breaker is open by {trip.name}, which ends with {trip.clears}"
        for trip in look.plan.trips
        if trip.cause is row.reason
    ]
    lines += [f"unknown: {item.message}" for item in unknown_about(name, usage.unknown)]
    lines += _under_pressure(look, name, row)
    if not row.users and row.verdict is not Verdict.FOREIGN and not unknown_about(name, usage.unknown):
        lines.append("no disk, snapshot, domain or qemu lock names it, and all of them could be asked")
    return tuple(lines)


def _under_pressure(look: Look, name: Name, row: Row) -> list[str]:
    """Whether a file would go for want of room, and which place it has in the order."""
    relief = look.plan.relief
    if relief is None or row.entry is not None or name.raw not in relief.order:
        return []
    place = f"it is number {relief.order.index(name.raw) + 1} of {len(relief.order)} that may go, by their last use"
    when = "goes" if name.raw in relief.evicted else "would go at once"
    return [f"for want of room it {when} before its own age: {place}"]


def _content(known: Wholeness | None, name: Name) -> list[str]:
    """What verification knows of a file in the cache."""
    if known is None or not name.is_final:
        return []
    lines = []
    baseline = known.baselines.get(name.raw)
    if baseline is None:
        lines.append("it has no baseline yet, so nobody can say whether its content changed")
    else:
        lines.append(
            f"baseline taken {timestamp(baseline.taken_at)}, last found whole {timestamp(baseline.verified_at)} "
            f"({baseline.algorithm} {baseline.root})"
        )
    lines += [
        f"{finding.flaw} since {timestamp(finding.found_at)}: {finding.message}{_places(finding)}"
        for finding in known.findings
        if finding.name == name.raw
    ]
    return lines


def _places(finding: Finding) -> str:
    offsets = finding.offsets
    return f" (bytes {', '.join(map(str, offsets))})" if len(offsets) > 1 else ""


def _document(item: _Explained) -> dict[str, Any]:
    return {
        **document.of_row(item.row),
        "meaning": MEANING[item.row.reason],
        "evidence": list(item.evidence),
        "whatNext": WHAT_NEXT[item.row.reason],
    }


def _print(item: _Explained) -> None:
    out, row = tables.console(), item.row
    place = " in the quarantine" if row.entry else ""
    out.print(Text.assemble((row.name, "bold"), f"  {row.kind.value}{place}, {format_size(row.bytes)}"))
    out.print(Text.assemble("  ", (f"{row.verdict.value}: {row.reason.value}", "bold"), f"  {MEANING[row.reason]}"))
    out.print(Text(f"  why       {row.message}"))
    for at, line in enumerate(item.evidence):
        out.print(Text(f"  {'evidence' if at == 0 else '        '}  {line}"))
    if row.removable_at is not None:
        out.print(Text(f"  may go    {timestamp(row.removable_at)}"))
    out.print(Text(f"  next      {WHAT_NEXT[row.reason]}"))
