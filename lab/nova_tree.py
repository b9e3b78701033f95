"""An instances directory as nova lays it out, with disks that qemu-img made (`qcow2` where it is missing).

    tree = NovaTree(Path("/somewhere/instances"))
    base = tree.add_base("9bd5...-image-uuid", age=2 * DAY)
    disk = tree.add_overlay("0f3c...-instance-uuid", base)

What nova does in two steps is two calls here too (`disk.info`, overlay, domain), so that a test can stop between.
"""

import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from .qcow2 import write_overlay

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MIB = 1024 * 1024


def image_file_name(image: str) -> str:
    """Return the name that nova gives to an image's base."""
    return hashlib.sha1(image.encode(), usedforsecurity=False).hexdigest()


class NovaTree:
    """A builder over one instances directory; what it needs it makes."""

    def __init__(self, instances_path: Path, *, base_name: str = "_base", seen_as: Path | None = None) -> None:
        """Build in `instances_path`; `base_name` is nova's `[image_cache] subdirectory_name`.

        `seen_as` is the path that the compute node knows it by, where that is another one.
        """
        self.instances_path = instances_path
        self._seen_as = seen_as or instances_path
        self.base_dir = instances_path / base_name
        self.locks_dir = instances_path / "locks"
        for directory in (instances_path, self.base_dir, self.locks_dir):
            directory.mkdir(parents=True, exist_ok=True)
        # An overlay says nothing of itself, only of its base: the next one over the same base has the same bytes.
        self._templates: dict[tuple[str, str, int], Path] = {}

    def seen(self, path: Path) -> Path:
        """Return the path by which the compute node knows a file of the tree; others it knows as they are."""
        if path.is_relative_to(self.instances_path):
            return self._seen_as / path.relative_to(self.instances_path)
        return path

    # --- the cache ---------------------------------------------------------------------------------------------

    def add_base(self, image: str, *, suffix: str = "", size: int = MIB, age: float = 0.0, seed: int = 1) -> Path:
        """Put an image's base into the cache, raw; `suffix` as in `_20`, `.part`; content follows from `seed`."""
        return self.add_file(image_file_name(image) + suffix, size=size, age=age, seed=seed)

    def add_swap(self, mib: int, *, age: float = 0.0) -> Path:
        """Put a swap base into the cache."""
        return self.add_file(f"swap_{mib}", size=mib * MIB, age=age, seed=0)

    def add_ephemeral(self, gib: int, *, filesystem: str = "0706d66", age: float = 0.0) -> Path:
        """Put an ephemeral base into the cache; `filesystem` is the hash that nova makes of the mkfs command."""
        return self.add_file(f"ephemeral_{gib}_{filesystem}", size=gib * 1024 * MIB, age=age, seed=0)

    def add_file(self, name: str | bytes, *, size: int = MIB, age: float = 0.0, seed: int = 1) -> Path:
        """Put a file of any name into the cache; seed 0 makes it a hole from end to end."""
        path = self.base_dir / os.fsdecode(name)
        with path.open("wb") as file:
            if seed:
                # Up to a MiB that no other seed gives, then holes: a cache of real sizes that costs no disk.
                file.write(hashlib.shake_128(str(seed).encode()).digest(min(size, MIB)))
            file.truncate(size)
        self.age(path, age)
        return path

    # --- instances ---------------------------------------------------------------------------------------------

    def instance(self, name: str) -> Path:
        """Return an instance's directory, made if need be; any name: a UUID, `..._resize`, `..._del`."""
        path = self.instances_path / name
        path.mkdir(exist_ok=True)
        return path

    def add_overlay(
        self, instance: str, base: Path | str, *, disk: str = "disk", size: int | None = None,
        backing_format: str = "raw", declare: bool = True,
    ) -> Path:  # fmt: skip
        """Make an instance's disk over a base, which may also be a relative name or a `json:` specification."""
        path = self.instance(instance) / disk
        if declare:
            self.declare(instance, disk, "qcow2")
        written = str(self.seen(base)) if isinstance(base, Path) else base
        key = (written, backing_format, size or (base.stat().st_size if isinstance(base, Path) else MIB))
        if (template := self._templates.get(key)) is not None and template.exists():
            shutil.copyfile(template, path)
        else:
            self._create_overlay(path, *key)
            self._templates[key] = path
        return path

    @staticmethod
    def _create_overlay(path: Path, base: str, backing_format: str, size: int) -> None:
        if shutil.which("qemu-img") is None:
            write_overlay(path, backing_file=base, backing_format=backing_format, size=size)
            return
        # -u: written as told, like the relative and vanished names that nova's own migrations left behind.
        command = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", backing_format, "-b", base]
        subprocess.run([*command, path, str(size)], check=True)

    def add_flat(self, instance: str, base: Path, *, disk: str = "disk", declare: bool = True) -> Path:
        """Make an instance's disk as a full copy of a base."""
        path = self.instance(instance) / disk
        if declare:
            self.declare(instance, disk, "raw")
        shutil.copyfile(base, path)
        return path

    def declare(self, instance: str, disk: str, disk_format: str) -> Path:
        """Add a disk to the instance's `disk.info`, as nova does before the disk exists."""
        directory = self.instance(instance)
        info = directory / "disk.info"
        known = json.loads(info.read_text()) if info.exists() else {}
        known[str(self.seen(directory / disk))] = disk_format
        info.write_text(json.dumps(known))
        return info

    def rename_instance(self, instance: str, new_name: str) -> Path:
        """Rename an instance's directory, as a resize or a deletion does."""
        self._templates.clear()
        return (self.instances_path / instance).rename(self.instances_path / new_name)

    # --- time and other hosts ----------------------------------------------------------------------------------

    def age(self, path: Path, seconds: float) -> None:
        """Make a file look as if it was last written or touched that long ago."""
        then = time.time() - seconds
        os.utime(path, (then, then), follow_symlinks=False)

    def register_host(self, host: str, *, age: float = 0.0) -> Path:
        """Enter a host into nova's list of those who use this storage."""
        path = self.instances_path / "compute_nodes"
        known = json.loads(path.read_text()) if path.exists() else {}
        known[host] = time.time() - age
        path.write_text(json.dumps(known))
        return path
