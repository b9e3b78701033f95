"""The chart's tests: rendered by Helm 3 and Helm 4, and installed by both into real API servers."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.control_plane import ControlPlane
from tests.chart import helm
from tests.cluster.fleet import started


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"empty_cluster", "accounts", "knowing"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture
def empty_cluster() -> Iterator[ControlPlane]:
    """A control plane of the test's own.

    The definitions of a release are the cluster's only ones, and an API server takes its time, now and then a minute,
    to forget such: a new one is ready sooner.
    """
    with started() as cluster:
        yield cluster


@pytest.fixture(params=helm.HELMS)
def version(request: pytest.FixtureRequest) -> str:
    """Each Helm that the chart is for."""
    return str(request.param)


@pytest.fixture(params=helm.VALUES, ids=helm.name_of)
def values(request: pytest.FixtureRequest) -> Path | None:
    """Each set of values that comes with the chart."""
    found: Path | None = request.param
    return found
