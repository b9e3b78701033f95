"""`basekeeper adopt`: the operator's word that these are the right directories, or that one trip is as it should be."""

from typing import Annotated

import typer

from basekeeper.cache import by_hand, engine
from basekeeper.cache.settings import Host

from . import options as o
from . import streams
from .errors import CommandFailed


@o.on_host
def adopt(
    host: Host,
    trip: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Instead: have the next pass end this trip of the breaker, and no other. `run` and the status of the "
            "node name it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say that these are the right directories, after a move or on a reinstalled host.

    Removals were held because the directories do not carry the ids of the last pass; from now on theirs count.
    """
    try:
        if trip is not None:
            by_hand.reset(host, trip)
        else:
            by_hand.adopt(host)
    except (engine.PassFailed, by_hand.NoSuchTrip) as error:
        raise CommandFailed(str(error)) from error
    if trip is not None:
        streams.say(f"the next pass ends {trip}")
    else:
        streams.say(f"adopted {host.instances} and {host.base}")
