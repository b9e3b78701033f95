"""`basekeeper plan` and `basekeeper run`: what a pass would do, and a pass."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from basekeeper.cache import deeds, engine, verification
from basekeeper.cache.evidence import Note
from basekeeper.cache.report import Outcome, Report
from basekeeper.cache.settings import Host, Policy

from . import document, interrupts, tables
from . import options as o
from .errors import CommandFailed, Exit


@o.on_host
def plan(host: Host, policy: Policy, output: o.OutputFormat = None) -> None:
    """Say for every file in the cache whether it may go, and why. Changes nothing at all.

    Exit status: 0 done, 1 failed, 2 wrong use or a bad policy, 3 done but something is held.
    """
    _end(_attempt(lambda: engine.judge_now(host, policy)[0], "Plan", host, policy), o.output(output))


@o.on_host
def run(host: Host, policy: Policy, output: o.OutputFormat = None) -> None:
    """Make one pass, which acts as the policy's mode allows.

    Audit (without a policy too) reports, and puts back what was removed and is needed. Enforce also removes what
    may go, into the quarantine, and purges what has been there for its retention. With `integrity` in the policy it
    verifies bases after that, for at most a minute; the next pass says, and acts on, what that found.

    Exit status: 0 done, 1 failed, 2 wrong use or a bad policy, 3 done but something was held.
    """
    with interrupts.between_files() as stop:
        with progress_shown() as progress:
            made = _attempt(lambda: engine.run(host, policy, progress, stop=stop), "Pass", host, policy)
            if not made.error and not stop():
                made = _verified(made, host, policy, progress, stop)
        _end(made, o.output(output), stop)


def _verified(made: Report, host: Host, policy: Policy, progress: deeds.Progress, stop: deeds.Stop) -> Report:
    """Verify a little after a pass; what fails there is told with the pass, and ends nothing."""
    progress("verifying", 0, 1)
    try:
        with engine.failures():
            verification.within_run(host, policy, stop)
    except engine.PassFailed as error:
        return replace(made, notes=(*made.notes, Note("NotVerified", f"bases could not be verified: {error}")))
    return made


@contextmanager
def progress_shown() -> Iterator[deeds.Progress]:
    """A progress bar on a terminal's standard error; silence elsewhere."""
    if not sys.stderr.isatty():
        yield lambda what, at, of: None
        return
    spinner = SpinnerColumn("dots" if sys.stderr.encoding.lower().startswith("utf") else "line")
    columns = (spinner, TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1)
        yield lambda what, at, of: bar.update(task, description=what, completed=at, total=of)


def _attempt(make: Callable[[], Report], kind: str, host: Host, policy: Policy) -> Report:
    """The report, or one that says why there is none."""
    try:
        return make()
    except engine.PassFailed as error:
        return Report(kind, host.node, time.time(), policy, error=str(error))


def _end(report: Report, form: o.Output, stopped: deeds.Stop = deeds.never) -> None:
    """Print a report, the document also when the pass failed, and leave with its status."""
    if form is not o.Output.TABLE:
        document.write(document.of_report(report), form)
    elif not report.error:
        tables.print_report(report)
    if report.error:
        raise CommandFailed(report.error)
    failed = [row.error for row in report.rows if row.error] if report.outcome is Outcome.FAILED else []
    if stopped():
        failed.insert(0, "interrupted between two files; the next pass does the rest")
    if failed:
        raise CommandFailed("; ".join(failed))
    raise typer.Exit(Exit.HELD if report.held else Exit.DONE)
