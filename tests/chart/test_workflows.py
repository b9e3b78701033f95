"""Workflows that nothing here can run: two linters read them, and what they must never do is looked for."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.control_plane_programs import tool

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def jobs(workflow: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"])


def test_actionlint_and_shellcheck_find_nothing() -> None:
    # actionlint hands every script to the shellcheck that it finds.
    path = f"{tool('actionlint')}:{ROOT / '.venv/bin'}:{os.environ['PATH']}"
    found = subprocess.run(
        ["actionlint", *WORKFLOWS], check=False, capture_output=True, text=True, env={**os.environ, "PATH": path}
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_zizmor_finds_no_weakness() -> None:
    options = ("--offline", "--persona", "pedantic", "--no-progress")
    found = subprocess.run(
        [ROOT / ".venv/bin/zizmor", *options, *WORKFLOWS], check=False, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit_and_says_its_version(workflow: Path) -> None:
    uses = re.findall(r"uses: (.+)$", workflow.read_text(encoding="utf-8"), re.MULTILINE)
    assert uses
    for action in uses:
        assert re.match(r"\./|[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", action), action


def test_one_action_has_one_version() -> None:
    text = "".join(workflow.read_text(encoding="utf-8") for workflow in WORKFLOWS)
    pins = set(re.findall(r"uses: ([\w/-]+)@(\S+)", text))
    assert len(pins) == len({action for action, _ in pins})


def test_only_the_job_that_publishes_may_write_or_sign() -> None:
    writers = {
        (workflow.stem, name)
        for workflow in WORKFLOWS
        for name, job in jobs(workflow).items()
        if "write" in job["permissions"].values()
    }
    assert writers == {("release", "publish")}


def test_nothing_is_published_that_was_not_tested_or_was_kept_from_another_run() -> None:
    release = ROOT / ".github/workflows/release.yml"
    assert "test" in jobs(release)["build"]["needs"]
    assert "build" in jobs(release)["publish"]["needs"]
    assert "cache" not in release.read_text(encoding="utf-8").replace("no-cache: true", "")
