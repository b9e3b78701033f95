"""Changes that make nodes more aggressive reach forty nodes in waves of a tenth; what makes them safer, at once.

The interval is the shortest that the server takes, a minute: these tests wait for it.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.control_plane import ControlPlane
from tests.cluster.fleet import Fleet, condition, eventually, is_condition
from tests.cluster.stubs import Stubs

NODES = [f"node-{number:02}" for number in range(40)]
WAVE = 4
INTERVAL = 60.0
AT_ONCE = 10.0
"""Seconds in which everybody has been told, on a busy machine."""
ROLLED_UP = 45.0
"""Seconds in which a policy's status follows: it is written every half minute."""
UUID = "0f2c3a1e-6d51-4a0b-9f0e-5a1b2c3d4e5f"


@pytest.fixture
def fleet(installed: ControlPlane, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(installed, tmp_path) as made:
        yield made


@pytest.fixture
def stubs(fleet: Fleet) -> Iterator[Stubs]:
    with Stubs(fleet, NODES) as made:
        yield made


def _apply(fleet: Fleet, name: str = "compute", **spec: Any) -> None:
    fleet.apply(name, **{"rollout": {"maxNodesPerInterval": "10%"}, **spec})


def _in(fleet: Fleet, mode: str) -> set[str]:
    return {name for name, cache in fleet.caches().items() if cache["spec"].get("mode") == mode}


def _waiting(fleet: Fleet) -> set[str]:
    return {name for name, cache in fleet.caches().items() if cache["spec"].get("rollout", {}).get("waiting")}


def _all_say(fleet: Fleet) -> bool:
    caches = fleet.caches().values()
    news = [
        item for item in caches if item.get("status", {}).get("observedGeneration") != item["metadata"]["generation"]
    ]
    return len(caches) == len(NODES) and not news


def test_waves_stop_on_trouble_go_on_without_it_and_are_taken_back_at_once(fleet: Fleet, stubs: Stubs) -> None:
    _apply(fleet, mode="Audit")
    fleet.start_controller()
    eventually(lambda: _in(fleet, "Audit") == set(NODES) and _all_say(fleet), "all report in Audit")

    _apply(fleet, mode="Enforce")
    first = eventually(lambda: _in(fleet, "Enforce"), "the first wave", AT_ONCE)
    began = time.monotonic()
    eventually(lambda: len(_in(fleet, "Enforce")) == WAVE, "all of it", AT_ONCE)
    first = _in(fleet, "Enforce")
    eventually(lambda: _waiting(fleet) == set(NODES) - first, "the others are told that they wait", AT_ONCE)
    going = eventually(lambda: _is_rolling_out(fleet, "InProgress"), "the condition says so", ROLLED_UP)
    assert going["message"].startswith("36 of 40 nodes wait for their wave; the next one is at ")

    troubled = min(first)
    stubs.open_breaker(troubled, "most bases in use lost their users at once")
    stopped = eventually(lambda: _is_rolling_out(fleet, "Stopped"), "the trouble is said", ROLLED_UP)
    assert f"the breaker of {troubled} is open" in stopped["message"]
    assert "most bases in use lost their users at once" in stopped["message"]
    assert is_condition(fleet.policy("compute"), "Degraded", "True", "BreakerOpen")
    counts = fleet.policy("compute")["status"]["nodes"]
    assert (counts["matched"], counts["waiting"], counts["failing"]) == (40, 36, 1)
    while time.monotonic() < began + INTERVAL + 5:
        assert _in(fleet, "Enforce") == first
        time.sleep(1)

    stubs.close_breaker(troubled)
    eventually(lambda: len(_in(fleet, "Enforce")) > WAVE, "the next wave", AT_ONCE)
    eventually(lambda: len(_in(fleet, "Enforce")) == 2 * WAVE, "all of it", AT_ONCE)
    time.sleep(3)
    second = _in(fleet, "Enforce")
    assert len(second) == 2 * WAVE
    assert second > first

    _apply(fleet, mode="Audit")
    eventually(lambda: _in(fleet, "Audit") == set(NODES), "all are in Audit at once", AT_ONCE)
    eventually(lambda: _waiting(fleet) == set(), "nobody waits", AT_ONCE)
    done = eventually(lambda: _is_rolling_out(fleet, "Complete"), "that is said", ROLLED_UP)
    assert done["status"] == "False"


def _is_rolling_out(fleet: Fleet, reason: str) -> Any:
    said = condition(fleet.policy("compute"), "RollingOut")
    return said if said["reason"] == reason else None


def test_an_override_that_ends_starts_waves_and_pins_wait_for_none(fleet: Fleet, stubs: Stubs) -> None:
    _apply(fleet, mode="Enforce")
    fleet.start_controller()
    eventually(lambda: len(_in(fleet, "Enforce")) == WAVE, "new nodes come in waves, too")
    eventually(lambda: len(_waiting(fleet)) == len(NODES) - WAVE, "the others wait in Audit")
    eventually(lambda: _all_say(fleet), "all have reported")

    _apply(fleet, "careful", mode="Audit", priority=100)
    eventually(lambda: _in(fleet, "Audit") == set(NODES), "the override counts at once", AT_ONCE)
    eventually(lambda: _followed(fleet) == {"careful"}, "all follow the other policy", AT_ONCE)
    eventually(lambda: _all_say(fleet), "all have reported")
    said = eventually(lambda: is_condition(fleet.policy("compute"), "Overridden", "True", "HigherPriority"), "said",
                      ROLLED_UP)  # fmt: skip
    assert said

    fleet.delete("/apis/basekeeper.io/v1alpha1/imagecachepolicies/careful")
    eventually(lambda: len(_waiting(fleet)) == len(NODES) - WAVE, "waves again", AT_ONCE)
    eventually(lambda: len(_in(fleet, "Enforce")) == WAVE, "the first of them", AT_ONCE)
    enforced = _in(fleet, "Enforce")
    eventually(lambda: _followed(fleet) == {"compute"}, "all follow the first policy again", AT_ONCE)

    _apply(fleet, mode="Enforce", pinnedImages=[UUID], minimumAge={"original": "12h"})
    eventually(lambda: _pinned(fleet) == set(NODES), "the pins are everywhere at once", AT_ONCE)
    # What removes more goes at most to the nodes of the last wave, which were told in this interval already.
    for _ in range(5):
        assert _in(fleet, "Enforce") == enforced
        assert _waiting(fleet) >= set(NODES) - enforced
        time.sleep(1)


def _followed(fleet: Fleet) -> set[str]:
    return {cache["spec"]["policy"]["name"] for cache in fleet.caches().values()}


def _pinned(fleet: Fleet) -> set[str]:
    return {name for name, cache in fleet.caches().items() if cache["spec"]["pinnedImages"] == [UUID]}
