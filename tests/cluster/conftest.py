"""A real Kubernetes control plane for tests (see `lab`): one for the session, because a start costs seconds."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from tests.cluster.fleet import install, started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """The session's control plane; a test keeps to names of its own, as those of `namespace`.

    It fails, never skips, where none can run: a suite that skips itself tests nothing and looks green.
    """
    with started() as cluster:
        yield cluster


@pytest.fixture
def fragile_control_plane(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The same, for tests that stop parts of it: whatever they leave is mended for the next one."""
    yield control_plane
    control_plane.heal()


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    """A new, empty namespace."""
    name = f"test-{secrets.token_hex(4)}"
    control_plane.api(
        "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )
    return name


@pytest.fixture(scope="session")
def installed(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with everything of deploy/ that belongs into a cluster."""
    install(control_plane)
    return control_plane
