"""`basekeeper adopt`: the operator's word that these are the right directories."""

import typer

from basekeeper.cache import by_hand, engine

from . import options as o
from .errors import CommandFailed


def adopt(
    instances_path: o.InstancesPath = o.INSTANCES,
    base_dir: o.BaseDir = None,
    policy: o.PolicyFile = None,
    libvirt: o.Libvirt = o.URI,
    libvirt_timeout: o.LibvirtTimeout = o.TIMEOUT,
    state_dir: o.StateDir = o.STATE,
    snapshots_dir: o.SnapshotsDir = None,
    nova_host: o.NovaHost = None,
    spawn_grace: o.SpawnGrace = o.GRACE,
) -> None:
    """Say that these are the right directories, after a move or on a reinstalled host.

    Removals were held because the directories do not carry the ids of the last pass; from now on theirs count.
    """
    host = o.host_from(
        instances_path, base_dir, snapshots_dir, state_dir, libvirt, libvirt_timeout, nova_host, spawn_grace
    )
    o.policy_from(policy)
    try:
        by_hand.adopt(host)
    except engine.PassFailed as error:
        raise CommandFailed(str(error)) from error
    typer.echo(f"adopted {host.instances} and {host.base}")
