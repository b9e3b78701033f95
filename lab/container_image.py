"""Container images as runtimes see them: the archive of `scripts/image` unpacked, and its program run by runc.

    image = unpack(archive, directory)
    image.run("plan", mounts=[Mount(tree, Path("/var/lib/nova/instances"))])

Runs are as strict as the chart's pods: the user of the image, a read-only root, no capability, no new privileges, and
no network. For root only: runc makes namespaces and control groups.
"""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIMEOUT = 60.0
"""Seconds after which a command in a container counts as hung."""
_NAMESPACES = ("pid", "mount", "ipc", "uts", "network")


@dataclass(frozen=True)
class Mount:
    """A directory of this machine, and where a container sees it."""

    source: Path
    target: Path
    read_only: bool = False


@dataclass(frozen=True)
class Entry:
    """What an archive says of a file: all that two builds could differ in."""

    kind: bytes
    mode: int
    owner: tuple[int, int]
    mtime: float
    link: str
    digest: str


@dataclass(frozen=True)
class Image:
    """An image's configuration and its file system."""

    config: dict[str, Any]
    """The image's JSON document: `config`, `history`, `rootfs`."""
    entries: dict[str, Entry]
    root: Path

    def run(
        self,
        *arguments: str,
        entrypoint: Sequence[str] | None = None,
        mounts: Sequence[Mount] = (),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the image's program, or another `entrypoint`, and wait for its end."""
        settings = self.config["config"]
        user, group = (int(part) for part in settings["User"].split(":"))
        given = [f"{name}={value}" for name, value in (environment or {}).items()]
        with tempfile.TemporaryDirectory() as bundle:
            specification = {
                "ociVersion": "1.0.2",
                "hostname": "container",
                "root": {"path": str(self.root), "readonly": True},
                "process": {
                    "user": {"uid": user, "gid": group},
                    "args": [*(entrypoint or settings["Entrypoint"]), *arguments],
                    "env": [*settings["Env"], *given],
                    "cwd": "/",
                    "noNewPrivileges": True,
                    "capabilities": {},
                },
                "mounts": [
                    {"destination": "/proc", "type": "proc", "source": "proc"},
                    *(_bind(mount) for mount in mounts),
                ],
                "linux": {"namespaces": [{"type": kind} for kind in _NAMESPACES]},
            }
            (Path(bundle) / "config.json").write_text(json.dumps(specification), encoding="utf-8")
            name = f"basekeeper-{Path(bundle).name}"
            command = ["runc", "--root", f"{bundle}/state", "run", "--bundle", bundle, name]
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=TIMEOUT
            )


def unpack(archive: Path, directory: Path) -> Image:
    """Read a docker-archive and lay its file system into `directory`."""
    parts, root = directory / "archive", directory / "root"
    for made in (parts, root):
        made.mkdir(parents=True)
    _extract(archive, parts)
    manifest = json.loads((parts / "manifest.json").read_text(encoding="utf-8"))[0]
    entries: dict[str, Entry] = {}
    for layer in manifest["Layers"]:
        with tarfile.open(parts / layer) as tar:
            entries |= {f"/{member.name}": _entry(tar, member) for member in tar}
        _extract(parts / layer, root)
    return Image(json.loads((parts / manifest["Config"]).read_text(encoding="utf-8")), entries, root)


def _extract(archive: Path, directory: Path) -> None:
    subprocess.run(
        ["tar", "--extract", "--preserve-permissions", "--file", archive, "--directory", directory], check=True
    )


def _bind(mount: Mount) -> dict[str, Any]:
    access = "ro" if mount.read_only else "rw"
    return {
        "destination": str(mount.target),
        "type": "bind",
        "source": str(mount.source),
        "options": ["rbind", access],
    }


def _entry(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    content = archive.extractfile(member) if member.isreg() else None
    digest = hashlib.sha256(content.read()).hexdigest() if content is not None else ""
    return Entry(member.type, member.mode, (member.uid, member.gid), member.mtime, member.linkname, digest)
