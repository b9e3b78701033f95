"""Container images without a registry: archives that containerd can load."""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path

from lab.compute_node import LabError
from lab.control_plane_programs import tool
from lab.kube_node import PAUSE_IMAGE


def build_image(archive: Path) -> str:
    """Build basekeeper's image from this tree, and return what the build says of it."""
    script = Path(__file__).parent.parent / "scripts/image"
    done = subprocess.run([str(script), "--output", str(archive)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"scripts/image: {done.stderr.strip()}")
    return done.stdout.strip()


def write_pause_image(archive: Path) -> None:
    """Write the image of the container that holds a pod's namespaces; every pod has one."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        _add(tar, "pause", (tool("pause") / "pause").read_bytes(), mode=0o755)
    layer_bytes = layer.getvalue()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer_bytes).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "layer.tar", layer_bytes)
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
