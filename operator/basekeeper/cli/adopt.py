"""`basekeeper adopt`: the operator's word that these are the right directories."""

from basekeeper.cache import by_hand, engine
from basekeeper.cache.settings import Host

from . import options as o
from . import streams
from .errors import CommandFailed


@o.on_host
def adopt(host: Host) -> None:
    """Say that these are the right directories, after a move or on a reinstalled host.

    Removals were held because the directories do not carry the ids of the last pass; from now on theirs count.
    """
    try:
        by_hand.adopt(host)
    except engine.PassFailed as error:
        raise CommandFailed(str(error)) from error
    streams.say(f"adopted {host.instances} and {host.base}")
