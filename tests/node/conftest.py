"""Compute nodes for tests: real libvirt daemons and real qemu (see `lab`), gone when the test is over."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from lab import file_system
from lab.compute_node import ComputeNode, available
from lab.file_system import FileSystem
from lab.nova_tree import NovaTree


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.node)


@pytest.fixture(scope="session")
def laboratory() -> None:
    """Fail, never skip, where nodes cannot run: a suite that skips itself tests nothing and looks green."""
    if (reason := available()) is not None:
        pytest.fail(f"no compute node can run here: {reason}", pytrace=False)


@pytest.fixture
def make_node(laboratory: None) -> Iterator[Callable[[str], ComputeNode]]:
    """Start as many nodes as the test asks for."""
    with ExitStack() as nodes:
        yield lambda name: nodes.enter_context(ComputeNode(name))


@pytest.fixture
def node(make_node: Callable[[str], ComputeNode]) -> ComputeNode:
    """One running node without domains."""
    return make_node("node-a")


@pytest.fixture(params=list(file_system.KINDS))
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileSystem]:
    """An empty file system, once of each kind."""
    if (reason := file_system.available()) is not None:
        pytest.fail(reason, pytrace=False)
    with FileSystem(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def tree(tmp_path: Path) -> NovaTree:
    """An empty instances directory."""
    return NovaTree(tmp_path / "instances")
