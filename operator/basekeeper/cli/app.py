"""The program: its commands, and how their endings become exit statuses."""

import os
import signal
import sys
from typing import Annotated, NoReturn

import typer
from typer import exceptions

from basekeeper import __version__

from . import hold, quarantine
from .adopt import adopt
from .errors import CommandFailed, Exit, UsageError
from .explain import explain
from .import_nova_conf import import_nova_conf
from .passes import plan, run

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Keep nova's cache of base images small, whole and explained.\n\n"
    "Start with `basekeeper plan`: it changes nothing and says for every file why it stays or may go.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"basekeeper {__version__}")
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
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(hold.app, name="hold")
app.command()(adopt)
app.command("import-nova-conf")(import_nova_conf)


def main() -> None:
    """Run a command; every failure is one line on standard error and a documented status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = app(standalone_mode=False)
    except UsageError as error:
        _leave(str(error), Exit.WRONG_USE)
    except CommandFailed as error:
        _leave(str(error), Exit.FAILED)
    except exceptions.TyperException as error:
        said = error.format_message()
        _leave(f"{said} (see --help)" if said else "", Exit.WRONG_USE)
    except (KeyboardInterrupt, exceptions.Abort):
        _leave("interrupted; what was under way is completed or undone by the next pass", Exit.FAILED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.FAILED)
    sys.exit(status or Exit.DONE)


def _leave(message: str, status: Exit) -> NoReturn:
    sys.stdout.flush()
    if message:
        sys.stderr.write("basekeeper: " + " ".join(message.split()) + "\n")
    sys.exit(status)
