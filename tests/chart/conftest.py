"""The chart's tests: rendered by Helm 3 and Helm 4, and installed by both into a real API server."""

from pathlib import Path

import pytest

from tests.chart import helm
from tests.cluster.conftest import control_plane

__all__ = ["control_plane"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and "control_plane" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(params=helm.HELMS)
def version(request: pytest.FixtureRequest) -> str:
    """Each Helm that the chart is for."""
    return str(request.param)


@pytest.fixture(params=helm.VALUES, ids=helm.name_of)
def values(request: pytest.FixtureRequest) -> Path | None:
    """Each set of values that comes with the chart."""
    found: Path | None = request.param
    return found
