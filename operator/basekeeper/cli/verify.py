"""`basekeeper verify`: is what lies in the cache still what it was?"""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.text import Text

from basekeeper.cache import engine, inventory, priority
from basekeeper.cache.amounts import format_size
from basekeeper.cache.contents import candidates
from basekeeper.cache.evidence import CachedFile
from basekeeper.cache.moments import timestamp
from basekeeper.cache.names import display, original_of, parse
from basekeeper.cache.settings import Host, Integrity, Policy
from basekeeper.cache.verification import Outcome, Stop, Told, Verified, Verifier
from basekeeper.resources.fields import is_uuid
from basekeeper.resources.quantities import QuantityError, parse_size

from . import document, interrupts, tables
from . import options as o
from .errors import CommandFailed, Exit, UsageError

_OLDEST = 3600.0
"""Seconds: what an interrupted reading found out longer ago than that is not what is so now."""
_STYLE = {Outcome.WHOLE: "green", Outcome.BASELINED: "green", Outcome.CORRUPT: "red", Outcome.UNREADABLE: "yellow"}
_GOOD = frozenset({Outcome.WHOLE, Outcome.BASELINED})

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME|UUID...]", help="File names in the cache, or image ids.  [default: every base]"),
]
MaxBytes = Annotated[
    str | None,
    typer.Option(
        "--max-bytes-per-second",
        metavar="SIZE",
        help="How fast to read, e.g. 50Mi.  [default: spec.integrity of the policy, else as fast as can be]",
    ),
]


@o.on_host
def verify(
    host: Host,
    policy: Policy,
    words: Words = None,
    max_bytes_per_second: MaxBytes = None,
    output: o.OutputFormat = None,
) -> None:
    """Read bases now and compare them with what they were when they were first read.

    A base that was never read gets its baseline, unless something may be writing it at this moment. Writes the ledger,
    and nothing in the cache. Reads behind all others, and leaves the page cache as it is.

    Exit status: 0 all are whole, 1 failed or interrupted, 2 wrong use or no such base, 3 one is corrupt, unreadable or
    has no baseline yet.
    """
    setting = policy.integrity or Integrity()
    rate = _rate(max_bytes_per_second)
    if rate is None and policy.integrity is not None:
        rate = policy.integrity.max_bytes_per_second
    started, error = time.time(), None
    results: list[Verified] = []
    with interrupts.between_files() as stop:
        try:
            with engine.failures():
                bases = _chosen(host, words or [])
                with _shown(bases) as told, priority.idle():
                    verifier = Verifier(host, setting, stop=stop, told=told, rate=rate, oldest=_OLDEST)
                    results = list(_each(verifier, bases, stop))
        except engine.PassFailed as failed:
            error = str(failed)
        if error is None and stop():
            error = "interrupted between two blocks; give the order again for the rest"
        _end(host, setting, results, time.time() - started, error, o.output(output))


def _rate(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        rate = parse_size(text)
    except QuantityError as error:
        raise UsageError(f"--max-bytes-per-second: {error}") from error
    if rate == 0:
        raise UsageError("--max-bytes-per-second: expected a size above 0; leave it out to read as fast as can be")
    return rate


def _chosen(host: Host, words: Sequence[str]) -> list[CachedFile]:
    """The bases that the words mean; without words all of them. Raises UsageError, OSError, Unobservable."""
    files = inventory.scan(host).files
    wanted = {item.name for item in candidates(host, files)}
    bases = [file for file in files if file.name.raw in wanted]
    if not words:
        return bases
    found: dict[bytes, CachedFile] = {}
    for word in words:
        meant = [file for file in bases if _means(word, file)]
        if not meant:
            raise UsageError(f"verify: no base of the name or image {word!r} is cached; see `basekeeper plan`")
        found |= {file.name.raw: file for file in meant}
    return list(found.values())


def _means(word: str, file: CachedFile) -> bool:
    if str(file.name) in (word, display(os.fsencode(word))):
        return True
    return is_uuid(word) and parse(file.name.raw).image in (original_of(word), original_of(word.lower()))


def _each(verifier: Verifier, bases: Sequence[CachedFile], stop: Stop) -> Iterator[Verified]:
    for file in bases:
        if stop():
            return
        yield verifier.verify(file.name.raw)


@contextmanager
def _shown(bases: Sequence[CachedFile]) -> Iterator[Told]:
    """A bar with a rate on a terminal's standard error; silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda _name, _done, _of, _read: None
        return
    rate = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), BarColumn(), *rate)
    before = {file.name.raw: 0 for file in bases}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=sum(file.size for file in bases))

        def told(name: bytes, done: int, _of: int, _read: int) -> None:
            bar.update(task, description=tables.short(display(name)), advance=done - before.get(name, 0))
            before[name] = done

        yield told


def _end(
    host: Host, setting: Integrity, results: Sequence[Verified], seconds: float, error: str | None, form: o.Output
) -> None:
    """Print what came of it, and leave with the status that fits."""
    if form is o.Output.TABLE:
        _print(results, seconds)
    else:
        document.write(_document(host, setting, results, seconds, error), form)
    if error is not None:
        raise CommandFailed(error)
    raise typer.Exit(Exit.DONE if all(item.outcome in _GOOD for item in results) else Exit.HELD)


def _print(results: Sequence[Verified], seconds: float) -> None:
    out = tables.console()
    if not results:
        out.print("no base was read")
        return
    table = tables.plain_table("name", "outcome", "bytes", "why")
    for item in results:
        style = _STYLE.get(item.outcome, "")
        name = escape(tables.short(display(item.name)))
        table.add_row(name, Text(item.outcome.value, style=style), format_size(item.size), Text(item.message))
    out.print(table)
    counts = Counter(item.outcome for item in results)
    told = ", ".join(f"{counts[outcome]} {outcome.value.lower()}" for outcome in Outcome if counts[outcome])
    read = sum(item.read for item in results)
    rate = f", {format_size(int(read / seconds))}/s" if seconds > 0 else ""
    out.print(f"[bold]{told}[/]; {format_size(read)} read{rate}")


def _document(
    host: Host, setting: Integrity, results: Sequence[Verified], seconds: float, error: str | None
) -> dict[str, Any]:
    counts = Counter(item.outcome for item in results)
    told: dict[str, Any] = {
        "kind": "Verification",
        "apiVersion": document.API_VERSION,
        "node": host.node,
        "time": timestamp(time.time()),
        "algorithm": setting.algorithm.value,
        "files": [_file(item) for item in results],
        "totals": {
            "files": len(results),
            "readBytes": sum(item.read for item in results),
            "byOutcome": {outcome.value: counts[outcome] for outcome in Outcome if counts[outcome]},
        },
        "seconds": round(seconds, 3),
    }
    return told if error is None else {**told, "error": error}


def _file(item: Verified) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": display(item.name),
        "kind": parse(item.name).kind.value,
        "outcome": item.outcome.value,
        "message": item.message,
        "size": item.size,
        "readBytes": item.read,
        "seconds": round(item.seconds, 3),
    }
    if item.root is not None:
        told["digest"] = item.root
    if item.finding is not None:
        told |= {"offsets": list(item.finding.offsets), "foundAt": timestamp(item.finding.found_at)}
    return told
