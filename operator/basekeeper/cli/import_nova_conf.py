"""`basekeeper import-nova-conf`: prints the policy that does what a nova.conf did.

The manifest goes to standard output, so that it can be piped into a file or into kubectl; warnings go to
standard error too.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from basekeeper.nova_conf.options import CURRENT, RELEASES
from basekeeper.nova_conf.policy import convert
from basekeeper.nova_conf.reader import NovaConfError, read
from basekeeper.resources.manifest import PolicyError

from .errors import UsageError


def import_nova_conf(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The nova.conf of a compute node.")],
    release: Annotated[
        str,
        typer.Option(metavar="NAME", help="The nova release that read it, such as queens; default: the current one."),
    ] = CURRENT,
    name: Annotated[str, typer.Option(metavar="POLICYNAME", help="The policy's name.")] = "from-nova-conf",
) -> None:
    """Print the ImageCachePolicy that does what this nova.conf did, old option names included."""
    if release.lower() not in RELEASES:
        raise UsageError(
            f"--release: no nova release with an image cache is called {release!r}; known: {', '.join(RELEASES)}"
        )
    try:
        conversion = convert(read(file, release.lower()), name)
    except (NovaConfError, PolicyError) as error:
        raise UsageError(str(error)) from error
    for warning in conversion.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    sys.stdout.write(conversion.manifest)
