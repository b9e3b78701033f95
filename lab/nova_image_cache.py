"""nova's own image cache manager on a tree: what it removes, touches and takes for used.

    made = nova_image_cache.run(tree, [Row(uuid, image_ref=image)])
    assert made.removed == ()

The manager is nova's, from its package, in an environment of its own (`scripts/nova`); only the database is given.
"""

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from .nova_tree import NovaTree

_ROOT = Path(__file__).resolve().parent.parent
_PROGRAM = Path(__file__).with_name("nova_image_cache_program.py")
HOST = "compute"
"""The name of the host whose nova this is."""


class NovaMissing(Exception):
    """nova's environment cannot be made, or nova does not start in it; one sentence says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """An instance as nova's database has it."""

    uuid: str
    image_ref: str | None = None
    host: str = HOST
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    task_state: str | None = None
    vm_state: str = "active"
    os_type: str | None = None
    swap_mib: tuple[int, ...] = ()
    ephemeral_gib: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """What one pass did. All are names of files in the cache."""

    active: tuple[str, ...]
    """Taken for used, by a row or by a disk that was looked at."""
    removable: tuple[str, ...]
    """Taken for unused, of originals and resized ones."""
    removed: tuple[str, ...]
    touched: tuple[str, ...]
    failure: str | None
    """What ended the pass, if it did not come to its end."""
    wall: float
    """Seconds of the manager's `update`, with nothing before or after it."""
    cpu: float
    """Seconds of processor, those of its processes included."""
    processes: int
    """How many processes nova started; each of them may have started others."""
    peak_mib: float
    """The most memory that nova's own process has had, MiB."""


class NovaImageCache:
    """nova's manager of one tree, in a process that lives until the end of a `with`."""

    def __init__(self, tree: NovaTree, options: Mapping[str, object] | None = None) -> None:
        """`options` are nova's, as `group.name`; paths and the host's name follow from the tree."""
        subdirectory = tree.base_dir.name
        self._options = {
            "host": HOST,
            "instances_path": str(tree.instances_path),
            "image_cache.subdirectory_name": subdirectory,
            **(options or {}),
        }

    def __enter__(self) -> Self:
        """Start it and wait until it can make a pass. Raises NovaMissing."""
        command = [python(), "-W", "ignore", str(_PROGRAM), json.dumps({"options": self._options})]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate()

    @property
    def pid(self) -> int:
        """The process that makes the passes."""
        return self._process.pid

    def update(self, rows: Iterable[Row], *, register: bool = False) -> Made:
        """Make one pass. `register`: as nova's periodic task, enter the host first, and leave out rows of others."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"instances": list(map(asdict, rows)), "register": register}) + "\n")
        self._process.stdin.flush()
        answer = self._answer()
        fields: dict[str, Any] = {
            name: tuple(said) if isinstance(said, list) else said for name, said in answer.items()
        }
        return Made(**fields)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise NovaMissing(f"nova's process ended with status {self._process.wait()}; it says why above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def run(tree: NovaTree, rows: Iterable[Row], options: Mapping[str, object] | None = None) -> Made:
    """Make one pass in a process of its own. Raises NovaMissing."""
    with NovaImageCache(tree, options) as nova:
        return nova.update(rows)


def python() -> str:
    """The Python that has nova; made if it is not there yet. Raises NovaMissing."""
    done = subprocess.run([str(_ROOT / "scripts" / "nova")], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise NovaMissing("nova cannot be had on this machine: scripts/nova says why above")
    return done.stdout.strip()
