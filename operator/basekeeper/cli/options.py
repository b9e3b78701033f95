"""The options that every command shares, and what they mean for the engine."""

import errno
import functools
import inspect
import os
import socket
import stat
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from basekeeper.cache.settings import Host, Policy
from basekeeper.nova_conf import manager
from basekeeper.resources import manifest
from basekeeper.resources.image_cache_policy import to_engine
from basekeeper.resources.quantities import QuantityError, parse_duration

from .errors import UsageError

WHERE = "Where things are"
_VARIABLE = "BASEKEEPER_"
"""Begins the variables that stand for options: a pod sets them, so that `kubectl exec` finds what its agent finds."""


class Output(StrEnum):
    """How to print."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


InstancesPath = Annotated[
    str,
    typer.Option(
        "--instances-path",
        envvar=_VARIABLE + "INSTANCES_PATH",
        metavar="DIR",
        help="nova's instances directory.",
        rich_help_panel=WHERE,
    ),
]
BaseDir = Annotated[
    str | None,
    typer.Option(
        "--base-dir",
        envvar=_VARIABLE + "BASE_DIR",
        metavar="DIR",
        help="The cache of base images; nova's subdirectory_name.  [default: _base in the instances directory]",
        rich_help_panel=WHERE,
    ),
]
SnapshotsDir = Annotated[
    str | None,
    typer.Option(
        "--snapshots-dir",
        envvar=_VARIABLE + "SNAPSHOTS_DIR",
        metavar="DIR",
        help="nova's snapshots_directory.  [default: snapshots in the instances directory]",
        rich_help_panel=WHERE,
    ),
]
StateDir = Annotated[
    str,
    typer.Option(
        "--state-dir",
        envvar=_VARIABLE + "STATE_DIR",
        metavar="DIR",
        help="Where the ledger is: on the host's own disk, not beside the instances.",
        rich_help_panel=WHERE,
    ),
]
PolicyFile = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="An ImageCachePolicy manifest, the one that kubectl apply takes.  [default: Audit with the defaults]",
    ),
]
Libvirt = Annotated[
    str,
    typer.Option(
        "--libvirt",
        envvar=_VARIABLE + "LIBVIRT",
        metavar="URI|none",
        help="Where libvirt listens (always opened read-only); `none` says that this host has no hypervisor to ask.",
    ),
]
LibvirtTimeout = Annotated[
    str,
    typer.Option(
        "--libvirt-timeout",
        envvar=_VARIABLE + "LIBVIRT_TIMEOUT",
        metavar="DURATION",
        help="How long one libvirt call may take.",
    ),
]
NovaHost = Annotated[
    str | None,
    typer.Option(
        "--nova-host",
        envvar=_VARIABLE + "NOVA_HOST",
        metavar="NAME",
        help="nova's `host` for this machine.  [default: the node's name]",
    ),
]
NovaConf = Annotated[
    str | None,
    typer.Option(
        "--nova-conf",
        envvar=_VARIABLE + "NOVA_CONF",
        metavar="FILE",
        help="nova-compute's nova.conf, which says whether nova's own manager removes too; read only.",
        rich_help_panel=WHERE,
    ),
]
SpawnGrace = Annotated[
    str,
    typer.Option(
        "--spawn-grace",
        envvar=_VARIABLE + "SPAWN_GRACE",
        metavar="DURATION",
        help="A directory without a domain that changed this recently may be a starting instance; "
        "0s: nothing can be starting here.",
    ),
]
OutputFormat = Annotated[
    Output | None,
    typer.Option("-o", "--output", help="How to print.  [default: table on a terminal, json elsewhere]"),
]

_SHARED: dict[str, tuple[Any, Any]] = {
    "instances_path": (InstancesPath, "/var/lib/nova/instances"),
    "base_dir": (BaseDir, None),
    "policy_file": (PolicyFile, None),
    "libvirt": (Libvirt, "qemu:///system"),
    "libvirt_timeout": (LibvirtTimeout, "10s"),
    "state_dir": (StateDir, "/var/lib/basekeeper"),
    "snapshots_dir": (SnapshotsDir, None),
    "nova_host": (NovaHost, None),
    "nova_conf": (NovaConf, None),
    "spawn_grace": (SpawnGrace, "10m"),
}
"""The options of every command that looks at a host: parameter, declaration, default."""

_NEVER_EMPTY: dict[str, tuple[str, str]] = {
    "instances_path": ("--instances-path", "nova's instances directory"),
    "base_dir": ("--base-dir", "the cache of base images, or leave it out"),
    "policy_file": ("--policy", "an ImageCachePolicy manifest, or leave it out"),
    "libvirt": ("--libvirt", "a URI, or none"),
    "state_dir": ("--state-dir", "the directory of the ledger"),
    "snapshots_dir": ("--snapshots-dir", "nova's snapshots directory, or leave it out"),
    "nova_host": ("--nova-host", "nova's `host` for this machine, or leave it out"),
    "nova_conf": ("--nova-conf", "nova-compute's nova.conf, or leave it out"),
}
"""Options whose empty value, as an unset variable in a script makes it, would mean something else; what to give."""


def on_host(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the shared options; it takes `host`, and `policy` if it wants it, which are read from them.

    typer reads signatures, so the wrapper shows it the command's own parameters followed by the shared ones.
    """
    return _with(command, _SHARED)


def as_program(command: Callable[..., None]) -> Callable[..., None]:
    """Give a program that takes its policy from the cluster the shared options but that one; it takes `host`.

    A program that runs for ever is started before a mount is there, and must say so instead of ending.
    """
    offered = {name: item for name, item in _SHARED.items() if name != "policy_file"}
    return _with(command, offered, must_exist=False)


def _with(
    command: Callable[..., None], offered: dict[str, tuple[Any, Any]], *, must_exist: bool = True
) -> Callable[..., None]:
    wanted = inspect.signature(command).parameters
    own = [item for item in wanted.values() if item.name not in ("host", "policy")]
    shared = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=declared)
        for name, (declared, default) in offered.items()
    ]

    @functools.wraps(command)
    def wrapper(**given: Any) -> None:
        where = {name: given.pop(name) for name in offered}
        for name, (option, what) in _NEVER_EMPTY.items():
            if where.get(name) == "":
                raise UsageError(f"{option} is empty; give {what}")
        policy = _policy(where.pop("policy_file", None))
        if "policy" in wanted:
            given["policy"] = policy
        command(host=_host(**where, must_exist=must_exist), **given)

    wrapper.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {item.name: item.annotation for item in [*own, *shared]}
    return wrapper


def _node() -> str:
    """The name of this node: a pod's host name is the pod's, so the chart gives it."""
    return os.environ.get("NODE_NAME") or socket.gethostname()


def _host(
    instances_path: str,
    base_dir: str | None,
    snapshots_dir: str | None,
    state_dir: str,
    libvirt: str,
    libvirt_timeout: str,
    nova_host: str | None,
    nova_conf: str | None,
    spawn_grace: str,
    *,
    must_exist: bool,
) -> Host:
    """The engine's view of this host. Raises UsageError."""
    instances = _instances(instances_path) if must_exist else _path("--instances-path", instances_path)
    conf = _path("--nova-conf", nova_conf) if nova_conf else None
    return Host(
        node=_node(),
        instances=instances,
        base=_path("--base-dir", base_dir) if base_dir else instances / "_base",
        snapshots=_path("--snapshots-dir", snapshots_dir) if snapshots_dir else instances / "snapshots",
        state=_path("--state-dir", state_dir),
        libvirt=None if libvirt == "none" else libvirt,
        libvirt_timeout=duration("--libvirt-timeout", libvirt_timeout),
        nova_host=nova_host,
        nova_conf=conf,
        nova_says=manager.says(conf),
        spawn_grace=duration("--spawn-grace", spawn_grace),
    )


def _instances(text: str) -> Path:
    path = _path("--instances-path", text)
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return path
        what = "is not a directory"
    except (FileNotFoundError, NotADirectoryError):
        what = "does not exist"
    except OSError as error:
        what = f"cannot be used: {error.strerror or error}"
    raise UsageError(f"--instances-path {text} {what}; give nova's instances directory")


def _path(option: str, text: str) -> Path:
    """An absolute path; whether there is anything, and of use, the pass finds out. Raises UsageError."""
    try:
        path = Path(text).absolute()
    except OSError as error:  # the working directory is gone
        raise UsageError(f"{option} {text}: {error.strerror or error}; give an absolute path") from error
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UsageError(f"{option} {text[:40]}...: {error.strerror}") from error
    return path


def _policy(path: str | None) -> Policy:
    """The policy in a manifest, or Audit with the defaults. Raises UsageError."""
    if path is None:
        return Policy()
    try:
        return to_engine(manifest.load(Path(path)), _node())
    except manifest.PolicyError as error:
        raise UsageError(str(error)) from error


def duration(option: str, text: str) -> float:
    """Seconds of an option like `10m`. Raises UsageError."""
    try:
        return parse_duration(text)
    except QuantityError as error:
        raise UsageError(f"{option}: {error}") from error


def output(chosen: Output | None) -> Output:
    """The chosen form, or what fits where standard output goes."""
    return chosen or (Output.TABLE if sys.stdout.isatty() else Output.JSON)
