"""Which settings remove more: every setting has a rule, and what may be told at once removes no more than before."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.controller import caution
from basekeeper.resources.fields import Strict
from basekeeper.resources.node_image_cache import NodeSpec
from basekeeper.resources.node_settings import NodeSettings
from tests.unit.controlling import UUID, removes_no_more

OTHER, THIRD = UUID.replace("0f2c", "aaaa"), UUID.replace("0f2c", "bbbb")
ENFORCE: dict[str, Any] = {"mode": "Enforce"}
NIGHT = {"schedule": "0 1 * * *", "duration": "3h"}
WEEKEND = {"schedule": "0 12 * * SAT", "duration": "4h", "timeZone": "Europe/Berlin"}

CAREFUL_FIRST: dict[str, tuple[Any, ...]] = {
    "mode": ("Audit", "Enforce"),
    "suspend": (True, False),
    "interval": ("2h", "40m", "1m"),
    "minimumAge.original": ("48h", "24h", "10m"),
    "minimumAge.resized": ("2h", "1h", "10m"),
    "minimumAge.swap": ("48h", "24h", "10m"),
    "minimumAge.ephemeral": ("48h", "24h", "10m"),
    "minimumAge.partial": ("48h", "24h", "10m"),
    "minimumAge.neverUsed": ("720h", "48h", None),
    "cachedOnly": ("Keep", "Remove"),
    "pinnedImages": ([UUID, OTHER], [OTHER], []),
    "limits.maxFiles": (1, 20, 1000),
    "limits.maxBytes": (1, "10Gi", None),
    "limits.maxPercent": (1, 25, 100),
    "quarantine.retention": ("24h", "6h", "0s"),
    "quarantine.drain": ("Restore", None, "Purge"),
    "pressure": (
        None,
        {"minimumAge": "4h"},
        {"minimumAge": "4h", "ignoreWindows": True},
        {"ignoreWindows": True},
        {"ignoreWindows": True, "lowPercent": 50},
        {"ignoreWindows": True, "lowPercent": 50, "highPercent": 60},
    ),
    "maxCacheBytes": (None, "200Gi", "100Gi"),
    "integrity": (None, {}),
    "acknowledged": ([], [{"path": "a", "reason": "r"}], [{"path": p, "reason": "r"} for p in "ab"]),
    "sharedStorage.mode": ("Refuse", "Coordinate"),
    "sharedStorage.retiredHosts": ([], ["node-a"], ["node-b", "node-a"]),
    "touchInUse": (True, False),
    "resetTrips": ([{"node": "node-0", "trip": "UsersVanished-20261124T101500Z"}],),
    "maintenanceWindows": ([NIGHT | {"duration": "1h"}], [NIGHT], [NIGHT, WEEKEND], []),
}
"""Every setting with values of it, the one that removes least first. A new field is not here, and fails a test."""


def settings(**spec: Any) -> NodeSettings:
    """Settings as a policy gives them."""
    return NodeSettings.model_validate({"mode": "Enforce"} | spec)


def made_of(values: dict[str, Any]) -> NodeSettings:
    """Settings from values by path; None is left out."""
    spec: dict[str, Any] = {}
    for path, value in values.items():
        *outer, name = path.split(".")
        if value is not None:
            (spec.setdefault(outer[0], {}) if outer else spec)[name] = value
    return NodeSettings.model_validate(spec)


def told(now: NodeSettings | None, wanted: NodeSettings) -> NodeSettings:
    """What a node may be told at once."""
    return NodeSettings.model_construct(**caution.safer_of(now, wanted))


def _fields(model: type[Strict], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for info in model.model_fields.values():
        inner = info.annotation
        if isinstance(inner, type) and issubclass(inner, Strict):
            yield from _fields(inner, f"{prefix}{info.alias}.")
        else:
            yield f"{prefix}{info.alias}", inner


def _members(annotation: Any) -> list[StrEnum]:
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return list(annotation)
    return [member for part in get_args(annotation) for member in _members(part)]


ALL_FIELDS = dict(_fields(NodeSettings))


def test_every_setting_has_a_rule() -> None:
    assert caution.SAFER.keys() == NodeSettings.model_fields.keys()
    assert CAREFUL_FIRST.keys() == ALL_FIELDS.keys()


@pytest.mark.parametrize("path", [path for path, kind in ALL_FIELDS.items() if _members(kind)])
def test_every_choice_has_a_place_between_careful_and_bold(path: str) -> None:
    assert set(_members(ALL_FIELDS[path])) == set(CAREFUL_FIRST[path]) - {None}


PAIRS = [
    pytest.param(path, careful, bold, id=f"{path}-{careful}-{bold}")
    for path, values in CAREFUL_FIRST.items()
    for place, careful in enumerate(values)
    for bold in values[place + 1 :]
]
BASE = {"mode": "Enforce", "pinnedImages": [THIRD], "sharedStorage.mode": "Coordinate"}
OPPOSED = {None, "Purge"}
"""Values of `drain`, of which each does what the other does not."""


@pytest.mark.parametrize(("path", "careful", "bold"), PAIRS)
def test_the_bolder_of_two_values_waits_and_the_more_careful_one_does_not(path: str, careful: Any, bold: Any) -> None:
    less, more = made_of(BASE | {path: careful}), made_of(BASE | {path: bold})
    assert caution.is_more_aggressive(less, more)
    assert removes_no_more(told(less, more), less)
    if path == "quarantine.drain" and {careful, bold} == OPPOSED:
        assert caution.is_more_aggressive(more, less)
    else:
        assert not caution.is_more_aggressive(more, less)
        assert not caution.is_more_aggressive(less, told(less, more))


@pytest.mark.parametrize("path", CAREFUL_FIRST)
def test_a_node_that_was_told_nothing_hears_of_every_setting_and_removes_nothing(path: str) -> None:
    wanted = made_of(BASE | {path: CAREFUL_FIRST[path][-1]})
    heard = told(None, wanted)
    assert not caution.acts(heard)
    assert heard.model_copy(update={"mode": wanted.mode}) == wanted


MIXED = {
    "a pin and a shorter age": (
        {"minimumAge": {"original": "24h"}},
        {"minimumAge": {"original": "1h"}, "pinnedImages": [UUID]},
        {"minimumAge": {"original": "24h"}, "pinnedImages": [UUID]},
    ),
    "one pin for another": ({"pinnedImages": [UUID]}, {"pinnedImages": [OTHER]}, {"pinnedImages": [OTHER, UUID]}),
    "a higher mark to begin at and a lower one to end at": (
        {"pressure": {"highPercent": 80, "lowPercent": 70}},
        {"pressure": {"highPercent": 90, "lowPercent": 60}},
        {"pressure": {"highPercent": 90, "lowPercent": 70}},
    ),
    "a budget that loses its longer age": (
        {"pressure": {"minimumAge": "4h"}, "maxCacheBytes": "100Gi"},
        {"maxCacheBytes": "100Gi"},
        {},
    ),
    "a budget that gets a longer age with the pressure": (
        {"maxCacheBytes": "100Gi"},
        {"pressure": {"minimumAge": "4h"}, "maxCacheBytes": "100Gi"},
        {},
    ),
    "a longer age and a shorter one": (
        {"minimumAge": {"original": "24h", "swap": "24h"}},
        {"minimumAge": {"original": "1h", "swap": "48h"}},
        {"minimumAge": {"original": "24h", "swap": "48h"}},
    ),
    "a longer age, and none of its own for files never used": (
        {"minimumAge": {"original": "24h", "neverUsed": "72h"}},
        {"minimumAge": {"original": "48h"}},
        {"minimumAge": {"original": "48h", "neverUsed": "72h"}},
    ),
    "fewer files and more bytes": (
        {"limits": {"maxFiles": 20, "maxBytes": "1Gi"}},
        {"limits": {"maxFiles": 2}},
        {"limits": {"maxFiles": 2, "maxBytes": "1Gi"}},
    ),
    "an acknowledged path for another": (
        {"acknowledged": [{"path": "a", "reason": "r"}]},
        {"acknowledged": [{"path": "b", "reason": "r"}]},
        {"acknowledged": []},
    ),
    "an acknowledged path for longer, and another one": (
        {"acknowledged": [{"path": "a", "reason": "r", "until": "2030-01-01T00:00:00Z"}]},
        {"acknowledged": [{"path": "a", "reason": "new"}, {"path": "b", "reason": "r"}]},
        {"acknowledged": [{"path": "a", "reason": "new", "until": "2030-01-01T00:00:00Z"}]},
    ),
    "Restore and a shorter age": (
        {"minimumAge": {"original": "24h"}},
        {"minimumAge": {"original": "1h"}, "quarantine": {"drain": "Restore"}},
        {"minimumAge": {"original": "24h"}, "quarantine": {"drain": "Restore"}},
    ),
    "a retired host for another": (
        {"sharedStorage": {"mode": "Coordinate", "retiredHosts": ["a", "b"]}},
        {"sharedStorage": {"mode": "Coordinate", "retiredHosts": ["C", "B"]}},
        {"sharedStorage": {"mode": "Coordinate", "retiredHosts": ["B"]}},
    ),
    "Coordinate, and fewer files": (
        {},
        {"sharedStorage": {"mode": "Coordinate", "retiredHosts": ["a"]}, "limits": {"maxFiles": 2}},
        {"limits": {"maxFiles": 2}},
    ),
    "other windows, and fewer files": (
        {"maintenanceWindows": [NIGHT]},
        {"maintenanceWindows": [WEEKEND], "limits": {"maxFiles": 2}},
        {"maintenanceWindows": [NIGHT], "limits": {"maxFiles": 2}},
    ),
    "one window longer, another one gone": (
        {"maintenanceWindows": [NIGHT, WEEKEND]},
        {"maintenanceWindows": [NIGHT | {"duration": "4h"}]},
        {"maintenanceWindows": [NIGHT, WEEKEND]},
    ),
    "no windows any more": ({"maintenanceWindows": [NIGHT]}, {}, {"maintenanceWindows": [NIGHT]}),
    "Purge: it removes nothing meanwhile": (
        {},
        {"quarantine": {"drain": "Purge"}},
        {"mode": "Audit", "quarantine": {"drain": "Purge"}},
    ),
    "Purge no more: it removes again": ({"quarantine": {"drain": "Purge"}}, {}, {"mode": "Audit"}),
    "Enforce again after suspend": (
        {"suspend": True},
        {"limits": {"maxFiles": 2}},
        {"mode": "Audit", "limits": {"maxFiles": 2}},
    ),
}


@pytest.mark.parametrize(("now", "wanted", "expected"), MIXED.values(), ids=MIXED)
def test_of_an_edit_that_does_both_the_safer_half_goes_at_once(
    now: dict[str, Any], wanted: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert caution.is_more_aggressive(settings(**now), settings(**wanted))
    assert told(settings(**now), settings(**wanted)) == settings(**expected)


AT_ONCE = {
    "the same": ({"pinnedImages": [UUID]}, {"pinnedImages": [UUID]}),
    "pins in another order": ({"pinnedImages": [UUID, OTHER]}, {"pinnedImages": [OTHER, UUID]}),
    "a pin in capitals, which pins both": ({"pinnedImages": [UUID]}, {"pinnedImages": [UUID.upper()]}),
    "a pin twice": ({"pinnedImages": [UUID]}, {"pinnedImages": [UUID, UUID]}),
    "another reason for an acknowledged path": (
        {"acknowledged": [{"path": "a", "reason": "r"}]},
        {"acknowledged": [{"path": "a", "reason": "better"}]},
    ),
    "the same end in another time zone": (
        {"acknowledged": [{"path": "a", "reason": "r", "until": "2030-01-01T00:00:00Z"}]},
        {"acknowledged": [{"path": "a", "reason": "r", "until": "2030-01-01T02:00:00+02:00"}]},
    ),
    "an earlier end of an acknowledged path": (
        {"acknowledged": [{"path": "a", "reason": "r"}]},
        {"acknowledged": [{"path": "a", "reason": "r", "until": "2030-01-01T00:00:00Z"}]},
    ),
    "the longest of several ends": (
        {"acknowledged": [{"path": "a", "reason": "r"}, {"path": "a", "reason": "r", "until": "2030-01-01T00:00:00Z"}]},
        {"acknowledged": [{"path": "a", "reason": "r", "until": "2031-01-01T00:00:00Z"}]},
    ),
    "windows in another order": ({"maintenanceWindows": [NIGHT, WEEKEND]}, {"maintenanceWindows": [WEEKEND, NIGHT]}),
    "the age of files never used, where it is that of the others": (
        {"minimumAge": {"original": "48h", "neverUsed": "48h"}},
        {"minimumAge": {"original": "48h"}},
    ),
    "suspend, whatever else changes": ({}, {"suspend": True, "minimumAge": {"original": "10m"}}),
    "Audit, whatever else changes": ({}, {"mode": "Audit", "minimumAge": {"original": "10m"}}),
    "Restore instead of Purge": ({"quarantine": {"drain": "Purge"}}, {"quarantine": {"drain": "Restore"}}),
}


@pytest.mark.parametrize(("now", "wanted"), AT_ONCE.values(), ids=AT_ONCE)
def test_what_removes_no_more_does_not_wait(now: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert not caution.is_more_aggressive(settings(**now), settings(**wanted))


def test_a_pin_in_capitals_pins_more_than_one_in_lower_case() -> None:
    assert caution.is_more_aggressive(settings(pinnedImages=[UUID.upper()]), settings(pinnedImages=[UUID]))


def test_pins_that_do_not_fit_into_a_node_s_object_make_it_wait_in_audit() -> None:
    pins = [f"{number:08x}{UUID[8:]}" for number in range(caution.MOST_PINS + 1)]
    NodeSpec.model_validate({"pinnedImages": pins[1:]})
    with pytest.raises(ValueError, match="at most 512"):
        NodeSpec.model_validate({"pinnedImages": pins})
    now = NodeSpec.model_validate(ENFORCE | {"pinnedImages": pins[:300]})
    wanted = settings(pinnedImages=pins[300:556])
    assert told(now, wanted) == wanted.model_copy(update={"mode": told(None, wanted).mode})
    fits = told(now, settings(pinnedImages=pins[300:512]))
    assert caution.acts(fits)
    assert set(fits.pinned_images) == set(pins[:512])


ROWS = st.lists(
    st.fixed_dictionaries(
        {"path": st.sampled_from("abc"), "reason": st.sampled_from("rs")},
        optional={"until": st.sampled_from(["2030-01-01T00:00:00Z", "2031-01-01T00:00:00+02:00"])},
    ),
    max_size=4,
)
PINS = st.lists(st.sampled_from([UUID, UUID.upper(), OTHER, THIRD]), max_size=4)
VALUES = {path: st.sampled_from(values) for path, values in CAREFUL_FIRST.items()}
ANY = st.fixed_dictionaries({**VALUES, "pinnedImages": PINS, "acknowledged": ROWS}).map(made_of)
ACTING = st.fixed_dictionaries(
    {**VALUES, "pinnedImages": PINS, "acknowledged": ROWS, "mode": st.just("Enforce"), "suspend": st.just(False)}
).map(made_of)
PAIR = st.tuples(st.none() | ANY, ANY) | st.tuples(ACTING, ACTING)


@given(PAIR)
def test_what_goes_at_once_removes_no_more_than_before(pair: tuple[NodeSettings | None, NodeSettings]) -> None:
    now, wanted = pair
    if not caution.is_more_aggressive(now, wanted):
        assert removes_no_more(wanted, now)


@given(PAIR)
def test_who_waits_removes_no_more_than_before_and_no_more_than_is_wanted(
    pair: tuple[NodeSettings | None, NodeSettings],
) -> None:
    now, wanted = pair
    assert removes_no_more(told(now, wanted), now)
    assert removes_no_more(told(now, wanted), wanted)


@given(PAIR)
def test_what_removes_no_more_never_waits(pair: tuple[NodeSettings | None, NodeSettings]) -> None:
    now, wanted = pair
    assert not caution.is_more_aggressive(now, told(now, wanted))
    drained = {item.quarantine.drain for item in (now, wanted) if item is not None} != {None}
    assert drained or not removes_no_more(wanted, now) or not caution.is_more_aggressive(now, wanted)


@given(PAIR)
def test_who_waits_is_told_the_same_again(pair: tuple[NodeSettings | None, NodeSettings]) -> None:
    now, wanted = pair
    first = told(now, wanted)
    assert told(first, wanted) == first
    assert caution.is_more_aggressive(first, wanted) == caution.is_more_aggressive(now, wanted)
