"""Trees that benchmarks measure: instances over bases, with real overlays over old bases."""

import json
import shutil
import uuid
from pathlib import Path

from lab.nova_tree import DAY, NovaTree

_AGE = 9 * DAY


def build(tree: NovaTree, instances: int, bases: int) -> list[Path]:
    """Lay out exactly so many instances over so many bases; their directories, in the order of the bases.

    Overlays are copies of what qemu-img made once for each base.
    """
    made: list[Path] = []
    for number in range(bases):
        base = tree.add_base(f"image-{number}", age=_AGE, seed=number + 1)
        template = tree.add_overlay(f"template-{number}", base)
        for _ in range(instances // bases + (number < instances % bases)):
            directory = tree.instance(str(uuid.uuid4()))
            shutil.copyfile(template, directory / "disk")
            (directory / "disk.info").write_text(json.dumps({str(directory / "disk"): "qcow2"}))
            (directory / "console.log").write_bytes(b"login: ")
            made.append(directory)
        shutil.rmtree(template.parent)
    return made
