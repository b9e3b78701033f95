"""The container image: what it is, what it does, what is not in it, and that it comes out the same twice."""

import json
import os
import re
import stat
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from basekeeper import __version__
from lab.compute_node import ComputeNode
from lab.container_image import Image, Mount, unpack
from lab.nova_tree import DAY, NovaTree, image_file_name

ROOT = Path(__file__).parents[2]
NOVA = 42424
"""The uid that openstack-helm's images give to nova."""
PLANTED = "planted-by-a-test.invalid"
"""A setting of this machine's pip, which a build is lent and an image must not keep."""
PYTHON = "/opt/basekeeper/bin/python3"
INSTANCES = Path("/var/lib/nova/instances")


def build(archive: Path, *options: str, **environment: str) -> Image:
    command = [str(ROOT / "scripts/image"), "--output", str(archive), *options]
    # A quarter of an hour: the first build on a machine also makes a base image, and there may be a queue.
    subprocess.run(command, check=True, timeout=900, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    return unpack(archive, archive.with_suffix(""))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def image(archives: Path) -> Image:
    """The image as everybody builds it, from what earlier builds left."""
    return build(archives / "image.tar")


@pytest.fixture(scope="module")
def fresh_image(archives: Path) -> Image:
    """The same from nothing, by a pip with a setting that can be looked for."""
    tag = ("--tag", "basekeeper/basekeeper:fresh")
    return build(archives / "fresh.tar", "--fresh", *tag, PIP_TRUSTED_HOST=PLANTED)


@pytest.fixture
def tree(tmp_path: Path) -> NovaTree:
    """An instances directory as nova's containers have it: everything is nova's own."""
    tmp_path.chmod(0o755)
    tree = NovaTree(tmp_path / "instances", seen_as=INSTANCES)
    tree.add_overlay("instance-1", tree.add_base("used", age=10 * DAY))
    tree.add_base("unused", age=10 * DAY)
    for path in [tree.instances_path, *tree.instances_path.rglob("*")]:
        os.chown(path, NOVA, NOVA)
    return tree


@pytest.fixture
def node() -> Iterator[ComputeNode]:
    with ComputeNode("container") as node:
        yield node


def distributions(image: Image) -> dict[str, str]:
    """Name and version of every Python distribution whose files are in the image."""
    found = {}
    for path in image.root.rglob("*.dist-info"):
        metadata = (path / "METADATA").read_text(encoding="utf-8")
        name, version = (re.search(rf"^{key}: (.+)$", metadata, re.MULTILINE) for key in ("Name", "Version"))
        assert name, path
        assert version, path
        found[normalised(name[1])] = version[1]
    return found


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def bill(image: Image) -> dict[str, Any]:
    text = (image.root / "usr/share/sbom/basekeeper.cdx.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


# --- what it is ------------------------------------------------------------------------------------------------


def test_it_starts_basekeeper_as_novas_user(image: Image) -> None:
    settings = image.config["config"]
    assert settings["Entrypoint"] == ["basekeeper"]
    assert settings["User"] == f"{NOVA}:{NOVA}"
    assert f"nova:x:{NOVA}:{NOVA}:" in (image.root / "etc/passwd").read_text(encoding="utf-8")
    assert not settings.get("Cmd")


def test_its_labels_say_what_it_is_and_which_sources_it_is_made_of(image: Image) -> None:
    labels = image.config["config"]["Labels"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = subprocess.run(
        ["git", "log", "-1", "--format=%H %cd", "--date=format-local:%Y-%m-%dT%H:%M:%SZ"],
        cwd=ROOT, check=False, capture_output=True, text=True, env={**os.environ, "TZ": "UTC"},
    )  # fmt: skip
    # Sources that were unpacked from an archive know no commit.
    commit = asked.stdout.split() if asked.returncode == 0 else ["unknown", "1970-01-01T00:00:00Z"]
    said = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert said["title"] == project["name"]
    assert said["description"] == project["description"]
    assert said["licenses"] == project["license"]
    assert said["version"] == __version__
    assert [said["revision"].removesuffix("-dirty"), said["created"]] == commit


def test_it_holds_no_shell_no_package_manager_and_no_way_to_another_user(image: Image) -> None:
    programs = sorted(
        name
        for name, entry in image.entries.items()
        if entry.kind == tarfile.REGTYPE and entry.mode & 0o111 and ".so" not in name and not name.endswith(".py")
    )
    assert programs == [
        "/opt/basekeeper/bin/basekeeper",
        f"/usr/bin/{python_of(image)}",
    ]
    assert not [name for name, entry in image.entries.items() if entry.mode & (stat.S_ISUID | stat.S_ISGID)]


def test_nothing_in_it_can_be_written_by_its_user(image: Image) -> None:
    writable = [
        name for name, entry in image.entries.items()
        if entry.owner != (0, 0) or (entry.mode & 0o022 and entry.kind != tarfile.SYMTYPE)
    ]  # fmt: skip
    # As everywhere, and read-only in a pod.
    assert sorted(writable) == ["/tmp", "/var/tmp"]  # noqa: S108


def python_of(image: Image) -> str:
    return (image.root / PYTHON[1:]).readlink().name


# --- what it does ----------------------------------------------------------------------------------------------


def test_it_runs_with_a_read_only_root_and_without_capabilities(image: Image) -> None:
    said = image.run("--version")
    assert (said.returncode, said.stdout, said.stderr) == (0, f"basekeeper {__version__}\n", "")
    status = image.run("-c", "print(open('/proc/self/status').read())", entrypoint=[PYTHON]).stdout
    assert f"Uid:\t{NOVA}\t{NOVA}\t{NOVA}\t{NOVA}" in status
    assert "CapEff:\t0000000000000000" in status
    assert image.run("-c", "open('/opt/x', 'w')", entrypoint=[PYTHON]).stderr.endswith("'/opt/x'\n")


def test_it_plans_beside_a_real_libvirt(image: Image, tree: NovaTree, node: ComputeNode, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, NOVA, NOVA)
    mounts = [
        Mount(tree.instances_path, INSTANCES),
        Mount(node.socket.parent, Path("/run/libvirt"), read_only=True),
        Mount(state, Path("/var/lib/basekeeper")),
    ]
    answer = image.run("plan", "--spawn-grace", "0s", mounts=mounts)
    assert answer.returncode == 0, answer.stdout
    document = json.loads(answer.stdout)
    assert document["holds"] == []
    assert {file["name"]: (file["verdict"], file["reason"]) for file in document["files"]} == {
        image_file_name("used"): ("Keep", "InUseByOverlay"),
        image_file_name("unused"): ("Remove", "Expired"),
    }


@pytest.mark.parametrize("role", ["agent", "controller"])
def test_agent_and_controller_get_as_far_as_looking_for_a_cluster(image: Image, role: str) -> None:
    answer = image.run(role, environment={"NODE_NAME": "node"})
    assert answer.returncode == 2, answer
    assert "kubeconfig" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_it_reads_a_nova_conf(image: Image, tmp_path: Path) -> None:
    (tmp_path / "nova.conf").write_text("[image_cache]\nremove_unused_original_minimum_age_seconds = 7200\n")
    tmp_path.chmod(0o755)
    answer = image.run("import-nova-conf", "/etc/nova/nova.conf", mounts=[Mount(tmp_path, Path("/etc/nova"))])
    assert answer.returncode == 0, answer.stderr
    assert "2h" in answer.stdout


# --- what it is made of ----------------------------------------------------------------------------------------


def test_the_bill_of_materials_names_every_distribution_and_package_with_its_version(image: Image) -> None:
    components = bill(image)["components"]
    python = {normalised(c["name"]): c["version"] for c in components if not c.get("purl", "").startswith("pkg:deb/")}
    assert distributions(image).items() <= python.items()
    status = (image.root / "var/lib/dpkg/status").read_text(encoding="utf-8")
    stanzas = (dict(re.findall(r"^(Package|Version): (.+)$", text, re.MULTILINE)) for text in status.split("\n\n"))
    packages = {(stanza["Package"], stanza["Version"]) for stanza in stanzas if stanza}
    assert {"libc6", "libvirt0"} <= {name for name, _ in packages}
    assert packages <= {(c["name"], c["version"]) for c in components}


def test_what_is_locked_is_what_is_in_it(image: Image) -> None:
    locked = {"basekeeper": __version__}
    for lock in ("run", "libvirt"):
        text = (ROOT / f"requirements/{lock}.txt").read_text(encoding="utf-8")
        locked |= {
            normalised(name): version for name, version in re.findall(r"^([\w.-]+)==([^ ]+)", text, re.MULTILINE)
        }
    # pbr asks for it and uses it only where something is built.
    del locked["setuptools"]
    assert distributions(image) == locked


# --- that it comes out the same --------------------------------------------------------------------------------


def test_two_builds_are_equal_to_the_last_bit(image: Image, fresh_image: Image, archives: Path) -> None:
    status = "/var/lib/dpkg/status"
    if image.entries[status] != fresh_image.entries[status]:
        # Debian has published something since the earlier build: both from nothing, then.
        image = build(archives / "once-more.tar", "--fresh", "--tag", "basekeeper/basekeeper:fresh")
    names = sorted(image.entries.keys() | fresh_image.entries.keys())
    different = [name for name in names if image.entries.get(name) != fresh_image.entries.get(name)]
    assert different == []
    assert without_names_of_intermediate_images(image) == without_names_of_intermediate_images(fresh_image)


def without_names_of_intermediate_images(image: Image) -> dict[str, Any]:
    """What buildah writes into comments depends on when an image that it kept was made, and names nothing published."""
    history = [{key: value for key, value in step.items() if key != "comment"} for step in image.config["history"]]
    return {**image.config, "history": history}


def test_nothing_of_the_building_machines_pip_stays_in_it(fresh_image: Image, archives: Path) -> None:
    settings = subprocess.run(["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    addresses = re.findall(r"https?://[^\s'\"]+", settings.stdout)
    # Layers are not compressed in this archive.
    content = (archives / "fresh.tar").read_bytes()
    for trace in [PLANTED, "host-authorities", *addresses]:
        assert trace.encode() not in content, trace
    assert not [name for name in fresh_image.entries if Path(name).name in {"pip.conf", "host-authorities.crt"}]


# --- how it is written -----------------------------------------------------------------------------------------


def test_the_dockerfile_is_clean_to_hadolint() -> None:
    hadolint = subprocess.run(
        [ROOT / ".venv/bin/hadolint", ROOT / "Dockerfile"], check=False, capture_output=True, text=True
    )
    assert hadolint.returncode == 0, hadolint.stdout


def test_the_first_build_on_a_machine_gets_as_far_as_its_base(tmp_path: Path) -> None:
    """The suite's own image may come out of a cache; here is none, and a base that is nowhere ends it."""
    done = subprocess.run(
        [ROOT / "scripts/image", "--base", "localhost/nowhere:1"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("image: no base image localhost/nowhere:1: ")
