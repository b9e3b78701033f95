"""Hosts without Kubernetes: systemd takes the units, and the pass that they start works inside their sandbox.

No systemd runs here. What it would do to the process is done by hand: its user, no capabilities, a read-only file
system but for the paths that the unit names. The system calls that the pass makes are compared with the unit's filter.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from basekeeper.resources import manifest
from lab.compute_node import ComputeNode
from lab.domain_xml import Disk, domain_xml
from lab.libvirt_files import NOVA
from lab.nova_tree import DAY, NovaTree

UNITS = Path(__file__).resolve().parents[2] / "deploy/systemd"
SERVICE, TIMER, POLICY = UNITS / "basekeeper.service", UNITS / "basekeeper.timer", UNITS / "policy.yaml"
PAGE = UNITS.parents[1] / "docs/without-kubernetes.md"
PROGRAM = "/opt/basekeeper/bin/basekeeper"
HERE = str(Path(sys.executable).with_name("basekeeper"))
INSTANCES = "/var/lib/nova/instances"
EXPOSURE_AT_MOST = 20
"""Tenths of what `systemd-analyze security` calls exposure, of 100."""
MACHINE = "0f3c0000-0000-4000-8000-000000000001"


def settings(unit: Path) -> dict[str, list[str]]:
    """The settings of a unit, comments left out."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units as installed, but for the program, which is the one of this checkout."""
    for unit in (SERVICE, TIMER):
        (tmp_path / unit.name).write_text(unit.read_text(encoding="utf-8").replace(PROGRAM, HERE), encoding="utf-8")
    return [str(tmp_path / SERVICE.name), str(tmp_path / TIMER.name)]


def test_systemd_finds_no_fault_with_the_units(installed: list[str]) -> None:
    told = analyze("verify", "--man=no", "--recursive-errors=no", *installed)
    assert (told.returncode, told.stderr) == (0, "")


@pytest.mark.parametrize("name", ["devstack", "root"])
def test_systemd_finds_no_fault_with_the_drop_ins_of_the_page(installed: list[str], name: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    place = f"/etc/systemd/system/{SERVICE.name}.d/{name}.conf"
    (block,) = re.findall(rf"^```ini\n# {re.escape(place)}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    directory = Path(f"{installed[0]}.d")
    directory.mkdir()
    (directory / f"{name}.conf").write_text(block, encoding="utf-8")
    told = analyze("verify", "--man=no", "--recursive-errors=no", *installed)
    assert (told.returncode, told.stderr) == (0, "")
    (directory / f"{name}.conf").write_text(block + "Nonsense=yes\n", encoding="utf-8")
    assert "Nonsense" in analyze("verify", "--man=no", *installed).stderr, "systemd did not read the drop-in"


def test_the_service_is_exposed_to_little(installed: list[str]) -> None:
    told = analyze("security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE_AT_MOST}", installed[0])
    assert told.returncode == 0, told.stdout


def test_nothing_hides_files_or_processes_that_are_evidence() -> None:
    hiding = {
        "InaccessiblePaths",
        "PrivateDevices",
        "PrivatePIDs",
        "PrivateTmp",
        "PrivateUsers",
        "ProcSubset",
        "ProtectProc",
        "RootDirectory",
        "RootImage",
        "TemporaryFileSystem",
    }
    found = settings(SERVICE)
    assert hiding & set(found) == set()
    assert found["ProtectHome"] == ["read-only"]


def test_the_timer_starts_the_service_as_often_as_novas_manager_ran() -> None:
    found = settings(TIMER)
    assert "Unit" not in found, "a timer without it starts the service of its own name"
    told = analyze("timespan", *found["OnUnitInactiveSec"])
    assert "μs: 2400000000" in told.stdout


def test_the_policy_beside_the_units_removes_nothing_yet() -> None:
    assert manifest.load(POLICY).spec.mode == "Audit"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users can get to, unlike pytest's."""
    found = Path(tempfile.mkdtemp(prefix="basekeeper-test-"))
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


@pytest.fixture
def start(place: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command of the unit on the tree of `place`, in a sandbox like the unit's; more words go before it."""
    assert os.geteuid() == 0, "changing users needs root"
    (command,) = settings(SERVICE)["ExecStart"]
    paths = {PROGRAM: HERE, "/etc/basekeeper/policy.yaml": str(place / "policy.yaml")}
    words = [paths.get(word, word) for word in shlex.split(command)]
    instances, state = str(place / "instances"), str(place / "state")
    (environment,) = settings(SERVICE)["Environment"]
    sandbox = (
        "set -e; mount --make-rprivate /; "
        # What is to stay writable becomes a mount of its own; then everything else is remounted.
        f"for path in {instances} {state}; do mount --bind $path $path; done; "
        "for path in / $(findmnt -rno TARGET --types ext4,xfs,btrfs,overlay,tmpfs); do "
        f'case $path in {instances}|{state}) ;; *) mount -o remount,bind,ro "$path" || true ;; esac; done; '
        'exec "$@"'
    )
    user = (
        "setpriv",
        f"--reuid={NOVA}",
        f"--regid={NOVA}",
        "--clear-groups",
        "--no-new-privs",
        "--bounding-set=-all",
    )

    def run(libvirt: str, *under: str) -> subprocess.CompletedProcess[str]:
        for path in (place, *place.rglob("*")):
            os.chown(path, NOVA, NOVA, follow_symlinks=False)
        return subprocess.run(
            [
                *("unshare", "--mount", "--net", "sh", "-c", sandbox, "sh"),
                *(*under, *user, "env", environment, *words),
                *("--instances-path", instances, "--state-dir", state, "--libvirt", libvirt, "--spawn-grace", "0s"),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_the_paths_of_the_unit_are_those_that_the_command_takes_by_itself() -> None:
    found = settings(SERVICE)
    assert found["ReadWritePaths"] == found["RequiresMountsFor"] == [INSTANCES]
    assert found["StateDirectory"] == ["basekeeper"]
    told = subprocess.run([HERE, "run", "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert INSTANCES in told
    assert "/var/lib/basekeeper" in told


def test_the_pass_that_the_unit_starts_works_in_its_sandbox(
    place: Path, node: ComputeNode, start: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    tree = NovaTree(place / "instances")
    (place / "state").mkdir()
    unused, used = tree.add_base("unused", age=30 * DAY), tree.add_base("used", age=30 * DAY, seed=2)
    node.define(domain_xml("instance-00000001", uuid=MACHINE, disks=[Disk(tree.add_overlay(MACHINE, used))]))
    shutil.copy(POLICY, place / "policy.yaml")

    audited = start(node.read_only_uri)
    assert audited.returncode == 0, audited
    assert ("Expired" in audited.stdout, unused.exists()) == (True, True)

    text = POLICY.read_text(encoding="utf-8")
    (place / "policy.yaml").write_text(text.replace("mode: Audit", "mode: Enforce"), encoding="utf-8")
    trace = place / "state/trace"
    closed = ("sh", "-c", f'touch {place}/elsewhere && exit 99; exec "$@"', "sh")
    acted = start(node.read_only_uri, *closed, "strace", "-f", "-qq", "-o", str(trace))
    assert "Read-only file system" in acted.stderr, "the sandbox is none"
    assert acted.returncode == 0, acted
    assert (unused.exists(), used.exists()) == (False, True)
    calls = trace.read_text(encoding="utf-8", errors="replace")
    of_the_pass = calls[calls.index(f'execve("{HERE}"') :]
    assert set(re.findall(r"^\d+ +(\w+)\(", of_the_pass, re.MULTILINE)) - allowed() == set()
    families = set(re.findall(r"\bsocket\((\w+)", of_the_pass))
    assert families == set(settings(SERVICE)["RestrictAddressFamilies"])


def allowed() -> set[str]:
    """The system calls of the unit's filter."""
    (wanted,) = settings(SERVICE)["SystemCallFilter"]
    found: set[str] = set()
    groups = [wanted]
    while groups:
        told = analyze("syscall-filter", "--no-pager", groups.pop())
        assert told.returncode == 0, told.stderr
        names = re.findall(r"^    (@?[\w-]+)$", told.stdout, re.MULTILINE)
        groups += [name for name in names if name.startswith("@")]
        found.update(name for name in names if not name.startswith("@"))
    return found
