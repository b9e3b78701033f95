"""A small file system of its own, real and empty, which a test may fill to the last block. Takes root."""

import os
import subprocess
from pathlib import Path

from .opening import Opening

MIB = 1 << 20
KINDS = {"tmpfs": 64 * MIB, "ext4": 64 * MIB, "xfs": 320 * MIB}
"""How large one of each kind is; XFS refuses to be smaller."""


def available() -> str | None:
    """Why no file system can be made here; None: it can."""
    return None if os.geteuid() == 0 else "mounting a file system takes root"


class FileSystem(Opening):
    """`with FileSystem("ext4", tmp_path) as disk:` mounts one at `disk.path`, until the block ends."""

    def __init__(self, kind: str, place: Path) -> None:
        self.kind = kind
        self.path = place / kind
        self._image = place / f"{kind}.img"

    def _open(self) -> None:
        self.path.mkdir()
        size = KINDS[self.kind]
        if self.kind == "tmpfs":
            _run("mount", "-t", "tmpfs", "-o", f"size={size}", "basekeeper-lab", self.path)
            return
        with self._image.open("wb") as image:
            image.truncate(size)
        _run(f"mkfs.{self.kind}", "-q", self._image)
        _run("mount", "-o", "loop", self._image, self.path)

    def close(self) -> None:
        """Unmount it; lazily, whatever a test has left open in it."""
        if self.path.is_mount():
            _run("umount", "--lazy", self.path)
        self._image.unlink(missing_ok=True)

    @property
    def used_percent(self) -> float:
        """How full it is, as df has it."""
        found = os.statvfs(self.path)
        used = found.f_blocks - found.f_bfree
        return 100 * used / (used + found.f_bavail)

    def fill(self) -> None:
        """Take every block that there is; once more, every block that has come free since."""
        with (self.path / "fill").open("ab", buffering=0) as file:
            for size in (MIB, 4096, 1):
                _write_until_full(file.fileno(), b"x" * size)
        os.sync()


def _write_until_full(descriptor: int, content: bytes) -> None:
    try:
        while True:
            os.write(descriptor, content)
    except OSError:
        return


def _run(*words: str | Path) -> None:
    subprocess.run(words, check=True, capture_output=True, text=True)
