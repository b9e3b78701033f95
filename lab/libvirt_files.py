"""What a compute node's libvirtd finds that others have made: accounts, and what an earlier one knew of qemu."""

import contextlib
import os
import shutil
from pathlib import Path

NOVA = 42424
"""The user and the group that own instances in openstack-helm, atmosphere and kolla's images."""
_ACCOUNTS = {"64055": "libvirt-qemu", str(NOVA): "nova"}
_ENTRIES = {
    Path("/etc/passwd"): "{name}:x:{number}:{number}::/nonexistent:/usr/sbin/nologin",
    Path("/etc/group"): "{name}:x:{number}:",
}


def write_accounts(directory: Path) -> list[tuple[Path, Path]]:
    """Write the lists of accounts that libvirtd is to see into `directory`; return each with the one it stands for.

    libvirtd's own account it looks up at its start, and Debian 12 makes that one in a package that would also install
    libvirt's services. Of whoever connects it wants to know the name, and turns away whom it does not know.
    """
    written = []
    for path, entry in _ENTRIES.items():
        known = path.read_text().splitlines()
        numbers = {line.split(":")[2] for line in known if line.count(":") > 1}
        known += [
            entry.format(name=name, number=number) for number, name in _ACCOUNTS.items() if str(number) not in numbers
        ]
        (directory / path.name).write_text("\n".join([*known, ""]))
        written.append((directory / path.name, path))
    return written


# What a qemu can do takes libvirt some eight seconds to find out, and it keeps the answer as a file that it checks
# against the times and sizes of all involved. A node with an empty cache would ask anew, every time.


def recall_capabilities(place: Path) -> None:
    """Give a libvirtd that has yet to start what earlier ones have found out; `place` is its cache."""
    if (known := _known()).is_dir():
        shutil.copytree(known, place / "qemu/capabilities")


def remember_capabilities(place: Path) -> None:
    """Keep what a libvirtd has found out, for those to come."""
    known = _known()
    with contextlib.suppress(OSError):  # a home that cannot be written costs time, nothing else
        known.mkdir(parents=True, exist_ok=True)
        for answer in (place / "qemu/capabilities").glob("*.xml"):
            # Beside it first: another node may be reading.
            unfinished = known / f"{answer.name}.{os.getpid()}"
            shutil.copy2(answer, unfinished)
            unfinished.rename(known / answer.name)


def _known() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "basekeeper/lab/capabilities"
