"""Every call of Helm that a page shows is understood by both Helms, and what it installs renders."""

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from tests.chart import helm

PAGES = sorted((*helm.ROOT.glob("*.md"), *helm.ROOT.glob("docs/**/*.md"), *helm.ROOT.glob("deploy/**/*.md")))
# What pages leave to the reader, or to a shell.
STANDS_FOR = {
    "REGISTRY": "registry.example",
    "$(cat digest)": f"sha256:{'0' * 64}",
    "/etc/genestack/helm-configs/basekeeper": "deploy/helm/basekeeper/values_overrides",
    "basekeeper-0.1.0.tgz": "deploy/helm/basekeeper",
}


@cache
def calls() -> list[tuple[str, list[str]]]:
    """The page and the words of each call."""
    return [
        (str(page.relative_to(helm.ROOT)), shlex.split(line, comments=True)[1:])
        for page in PAGES
        for block in re.findall(r"^```\w*\n(.*?)^```$", completed(page), re.DOTALL | re.MULTILINE)
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("helm ")
    ]


def completed(page: Path) -> str:
    text = page.read_text(encoding="utf-8")
    for told, meant in STANDS_FOR.items():
        text = text.replace(told, meant)
    return text


@cache
def options(version: str, command: str) -> frozenset[str]:
    told = helm.helm(version, command, "--help")
    assert told.returncode == 0, f"{command} is no command of {version}"
    return frozenset(re.findall(r"--[a-z-]+", told.stdout))


def test_there_are_calls_to_check() -> None:
    assert {words[0] for _, words in calls()} >= {"install", "upgrade", "uninstall", "test", "rollback", "package"}


def test_both_helms_know_every_option(version: str) -> None:
    unknown = {
        (page, words[0], option)
        for page, words in calls()
        for option in (word.partition("=")[0] for word in words if word.startswith("--"))
        if option not in options(version, words[0])
    }
    assert unknown == set()


@pytest.mark.parametrize("number", range(len([1 for _, words in calls() if words[0] == "install"])))
def test_what_a_page_installs_renders(version: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(helm.ROOT)
    page, words = [(page, words) for page, words in calls() if words[0] == "install"][number]
    served = [word for kind in helm.OPERATOR for word in ("--api-versions", kind)]
    made = helm.helm(version, "template", *words[1:], "--kube-version", helm.KUBERNETES, *served)
    assert made.returncode == 0, f"{page}: {made.stderr}"
    assert "image: registry.example/basekeeper" in made.stdout or "image.repository" not in " ".join(words)
    assert Path(words[2]).is_dir()
