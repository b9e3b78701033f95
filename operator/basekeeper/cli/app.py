"""The program: its commands, and how their endings become exit statuses."""

import sys
from contextlib import suppress
from typing import Annotated, NoReturn

import typer
from typer import exceptions

from basekeeper import __version__

from . import check_cluster, hold, interrupts, quarantine, streams
from .adopt import adopt
from .agent import agent
from .controller import controller
from .errors import CommandFailed, Exit, UsageError
from .explain import explain
from .import_nova_conf import import_nova_conf
from .orphans import list_orphans
from .passes import plan, run
from .verify import verify

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Keep nova's cache of base images small, whole and explained.\n\n"
    "Start with `basekeeper plan`: it changes nothing and says for every file why it stays or may go.",
)


_INTERRUPTED = "interrupted; what was under way is completed or undone by the next pass"


def _version(wanted: bool) -> None:
    if wanted:
        streams.say(f"basekeeper {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options of the program itself."""


app.command()(plan)
app.command()(run)
app.command()(explain)
app.command()(verify)
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(hold.app, name="hold")
app.command("orphans")(list_orphans)
app.command()(adopt)
app.command()(agent)
app.command()(controller)
app.add_typer(check_cluster.app, name="check-cluster")
app.command("import-nova-conf")(import_nova_conf)


def main() -> NoReturn:
    """Run a command; every failure is one line on standard error and a documented status."""
    streams.prepare()
    interrupts.raise_once()
    try:
        said, status = _called()
        interrupts.end_at_once(_INTERRUPTED)
    except interrupts.Interrupted:
        said, status = _INTERRUPTED, Exit.FAILED
    with suppress(CommandFailed):  # what was said first counts
        sys.stdout.flush()
    interrupts.ignore()
    if said:
        streams.complain(said)
    sys.exit(status)


def _called() -> tuple[str, int]:
    """What to say of how the command ended, and its status."""
    try:
        status = app(standalone_mode=False)
        sys.stdout.flush()
    except UsageError as error:
        return str(error), Exit.WRONG_USE
    except CommandFailed as error:
        return str(error), Exit.FAILED
    except exceptions.TyperException as error:
        said = error.format_message()
        return f"{said} (see --help)" if said else "", Exit.WRONG_USE
    except exceptions.Abort:
        return _INTERRUPTED, Exit.FAILED
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}", Exit.FAILED
    return "", status or Exit.DONE
