"""The policy: what it reads, what the engine gets of it, and how every mistake is worded."""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from basekeeper.cache.settings import AcknowledgedPath, CachedOnly, Drain, Limits, MinimumAge, Mode, Policy
from basekeeper.cache.windows import Window
from basekeeper.resources.image_cache_policy import API_VERSION, KIND, PolicySpec, to_engine
from basekeeper.resources.manifest import MAX_BYTES, PolicyError, load, parse
from basekeeper.resources.quantities import shown

UUID = "0f2c3a1e-6d51-4a0b-9f0e-5a1b2c3d4e5f"


def document(**spec: Any) -> dict[str, Any]:
    """A policy whose spec is `mode: Audit` and `spec`."""
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "compute"}, "spec": {"mode": "Audit"} | spec}


def refusal(what: object) -> str:
    """The message for a document that is no policy, without the source that it names."""
    with pytest.raises(PolicyError) as caught:
        parse(what, "f")
    return str(caught.value).removeprefix("f: ")


def test_the_shortest_policy_is_the_engine_s_defaults_under_its_name() -> None:
    assert to_engine(parse(document(), "f"), "node-1") == Policy(name="compute")


def test_every_field_reaches_the_engine() -> None:
    policy = document(
        mode="Enforce",
        suspend=True,
        minimumAge={
            "original": "1s",
            "resized": "2s",
            "swap": "3s",
            "ephemeral": "4s",
            "partial": "0s",
            "neverUsed": "5s",
        },
        cachedOnly="Remove",
        pinnedImages=[UUID],
        limits={"maxFiles": 3, "maxBytes": "1Gi", "maxPercent": 100},
        quarantine={"retention": "0s", "drain": "Restore"},
        acknowledged=[{"path": "a/disk", "reason": "gone", "until": "1970-01-01T01:00:00+00:30"}],
        sharedStorage={"mode": "Refuse"},
        resetTrips=[
            {"node": node, "trip": f"{TRIP[:-2]}{number}Z"} for number, node in enumerate(["node-1", "node-2"])
        ],
        maintenanceWindows=[
            {"schedule": "30 1 * * SAT", "duration": "4h", "timeZone": "Europe/Berlin"},
            {"schedule": "0 3 L * *", "duration": "1s"},
        ],
    )
    assert to_engine(parse(policy, "f"), "node-1") == Policy(
        name="compute",
        mode=Mode.ENFORCE,
        suspend=True,
        minimum_age=MinimumAge(1, 2, 3, 4, 0, never_used=5),
        cached_only=CachedOnly.REMOVE,
        pinned_images=frozenset({UUID}),
        limits=Limits(3, 2**30, 100),
        retention=0,
        drain=Drain.RESTORE,
        acknowledged=(AcknowledgedPath("a/disk", "gone", 1800),),
        reset_trips=frozenset({"UsersVanished-20261124T101500Z"}),
        windows=(
            Window("30 1 * * SAT", 4 * 3600, ZoneInfo("Europe/Berlin")),
            Window("0 3 L * *", 1, ZoneInfo("UTC")),
        ),
    )


def test_a_node_gets_only_its_own_acknowledged_rows_and_those_of_all_nodes() -> None:
    rows = [{"node": node, "path": node, "reason": "r"} for node in ("node-1", "node-2")]
    engine = to_engine(parse(document(acknowledged=[*rows, {"path": "/all", "reason": "r"}]), "f"), "node-1")
    assert [row.path for row in engine.acknowledged] == ["node-1", "/all"]


def test_an_image_id_in_capitals_is_pinned_as_written_and_as_glance_makes_them() -> None:
    engine = to_engine(parse(document(pinnedImages=[UUID.upper()]), "f"), "node-1")
    assert engine.pinned_images == {UUID, UUID.upper()}


def test_the_cluster_s_floors_are_not_the_model_s() -> None:
    assert parse(document(interval="0s"), "f").spec.interval == 0


def test_every_field_is_described() -> None:
    schema = PolicySpec.model_json_schema()
    models = [schema, *schema["$defs"].values()]
    fields = [item for model in models for item in model.get("properties", {}).items()]
    assert [key for key, field in fields if "description" not in field] == []


def test_the_schema_shows_defaults_as_people_write_them_and_no_null() -> None:
    schema = PolicySpec.model_json_schema()
    assert schema["properties"]["interval"]["default"] == "40m"
    assert schema["properties"]["nodeSelector"].get("anyOf") is None


SELECTORS = {
    "labels": {"matchLabels": {"openstack-compute-node": "enabled"}},
    "an expression with values": {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
    "an expression without values": {"matchExpressions": [{"key": "example.com/gpu", "operator": "DoesNotExist"}]},
}


@pytest.mark.parametrize("selector", SELECTORS.values(), ids=SELECTORS)
def test_a_label_selector_is_accepted(selector: dict[str, Any]) -> None:
    assert parse(document(nodeSelector=selector), "f").spec.node_selector is not None


OF_A_TRIP = "expected the name of a trip as status.breaker.trip has it"
TRIP = "UsersVanished-20261124T101500Z"
WINDOW = "spec.maintenanceWindows[0]"
FIVE = "expected five cron fields (minute, hour, day of month, month, day of week) such as"
EMPTY = "spec.nodeSelector: empty; give matchLabels or matchExpressions, or remove nodeSelector for every node"
MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "hosts that are gone, though none is asked": (
        {"sharedStorage": {"retiredHosts": ["a"]}},
        "spec.sharedStorage.retiredHosts: takes sharedStorage.mode: Coordinate; with Refuse no host is asked",
    ),
    "a misspelt field": ({"minunumAge": {}}, "spec.minunumAge: unknown field; did you mean minimumAge?"),
    "a misspelt field in a list": (
        {"acknowledged": [{"paht": "a", "path": "a", "reason": "r"}]},
        "spec.acknowledged[0].paht: unknown field; did you mean path?",
    ),
    "a field like no other": ({"zzz": 1}, "spec.zzz: unknown field; remove it"),
    "Python's name of a field": ({"cached_only": "Keep"}, "spec.cached_only: unknown field; did you mean cachedOnly?"),
    "a mode in small letters": ({"mode": "enforce"}, 'spec.mode: expected Audit or Enforce, got "enforce"'),
    "a number for a duration": (
        {"minimumAge": {"original": 24}},
        "spec.minimumAge.original: expected a duration such as 24h, got 24",
    ),
    "a pinned name": (
        {"pinnedImages": [UUID, UUID, "ubuntu"]},
        'spec.pinnedImages[2]: expected an image\'s UUID such as 0f2c3a1e-6d51-4a0b-9f0e-5a1b2c3d4e5f, got "ubuntu"',
    ),
    "too many pinned images": (
        {"pinnedImages": [UUID] * 257},
        "spec.pinnedImages: expected at most 256 entries, got 257",
    ),
    "an empty selector": ({"nodeSelector": {}}, EMPTY),
    "a selector of empty conditions": ({"nodeSelector": {"matchLabels": {}, "matchExpressions": []}}, EMPTY),
    "a selector with nothing after it": (
        {"nodeSelector": None},
        "spec.nodeSelector: expected a value, got nothing; give it one or remove the line",
    ),
    "a label that YAML takes for a truth value": (
        {"nodeSelector": {"matchLabels": {"gpu": True}}},
        "spec.nodeSelector.matchLabels.gpu: expected text, got true; put it in quotes",
    ),
    "an operator without its values": (
        {"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
        "spec.nodeSelector.matchExpressions[0]: expected values for the operator In",
    ),
    "values without their operator": (
        {"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
        "spec.nodeSelector.matchExpressions[0]: expected no values for the operator Exists",
    ),
    "text for a truth value": ({"suspend": "yes"}, 'spec.suspend: expected true or false, got "yes"'),
    "text for a number": ({"priority": "1"}, 'spec.priority: expected a whole number, got "1"'),
    "a truth value for a number": ({"priority": True}, "spec.priority: expected a whole number, got true"),
    "no percentage": ({"limits": {"maxPercent": 101}}, "spec.limits.maxPercent: expected at most 100, got 101"),
    "no bytes at all": (
        {"limits": {"maxBytes": 0}},
        'spec.limits.maxBytes: expected a size above 0, got 0; write "suspend: true" to stop removals',
    ),
    "an empty path": (
        {"acknowledged": [{"path": "", "reason": "r"}]},
        "spec.acknowledged[0].path: expected text, got nothing",
    ),
    "an endless path": (
        {"acknowledged": [{"path": "a" * 4097, "reason": "r"}]},
        "spec.acknowledged[0].path: expected at most 4096 characters",
    ),
    "a path with NUL": (
        {"acknowledged": [{"path": "a\0", "reason": "r"}]},
        "spec.acknowledged[0].path: expected text without NUL characters",
    ),
    "a row without a reason": ({"acknowledged": [{"path": "a"}]}, "spec.acknowledged[0].reason: required"),
    "a day that does not exist": (
        {"acknowledged": [{"path": "a", "reason": "r", "until": "2026-02-30T00:00:00Z"}]},
        'spec.acknowledged[0].until: expected a time such as 2026-12-31T00:00:00Z, got "2026-02-30T00:00:00Z"',
    ),
    "a time without its zone": (
        {"acknowledged": [{"path": "a", "reason": "r", "until": "2026-02-20T00:00:00"}]},
        'spec.acknowledged[0].until: expected a time such as 2026-12-31T00:00:00Z, got "2026-02-20T00:00:00"',
    ),
    "a shorter age for what was never used": (
        {"minimumAge": {"neverUsed": "23h59m"}},
        "spec.minimumAge.neverUsed: expected a duration no shorter than minimumAge.original, or none",
    ),
    **{
        f"the trip {trip!r}": (
            {"resetTrips": [{"node": "n", "trip": trip}]},
            f"spec.resetTrips[0].trip: {OF_A_TRIP}, {TRIP}, got {shown(trip)}",
        )
        for trip in ("UsersVanished", "UnknownUsage-20261124T101500Z", f"{TRIP} ", "", 7)
    },
    "a trip of no node": ({"resetTrips": [{"trip": TRIP}]}, "spec.resetTrips[0].node: required"),
    "a schedule in a word": (
        {"maintenanceWindows": [{"schedule": "@daily", "duration": "1h"}]},
        f'{WINDOW}.schedule: {FIVE} "30 1 * * SAT", got "@daily"',
    ),
    "a schedule of six fields": (
        {"maintenanceWindows": [{"schedule": "0 0 1 * * *", "duration": "1h"}]},
        f'{WINDOW}.schedule: {FIVE} "30 1 * * SAT", got "0 0 1 * * *"',
    ),
    "a schedule that never comes round": (
        {"maintenanceWindows": [{"schedule": "0 0 30 2 *", "duration": "1h"}]},
        f'{WINDOW}.schedule: expected a schedule that comes round, got "0 0 30 2 *": bad day-of-month',
    ),
    "days of the week the wrong way round": (
        {"maintenanceWindows": [{"schedule": "0 0 * * FRI-SUN", "duration": "1h"}]},
        f'{WINDOW}.schedule: expected a schedule that comes round, got "0 0 * * FRI-SUN": bad day-of-week',
    ),
    "a window that is never open": (
        {"maintenanceWindows": [{"schedule": "0 0 * * *", "duration": "0s"}]},
        f"{WINDOW}.duration: expected a duration above 0s; nothing could ever run",
    ),
    **{
        f"the time zone {zone!r}": (
            {"maintenanceWindows": [{"schedule": "0 0 * * *", "duration": "1h", "timeZone": zone}]},
            f"{WINDOW}.timeZone: expected the name of a time zone such as Europe/Berlin, got {shown(zone)}",
        )
        for zone in ("Europe/Berlim", "Europe", "../UTC", "/etc/localtime", "+01:00", "tzdata.zi", "", 1, "A" * 65)
    },
    "too many windows": (
        {"maintenanceWindows": [{"schedule": "0 0 * * *", "duration": "1h"}] * 17},
        "spec.maintenanceWindows: expected at most 16 entries, got 17",
    ),
    "more mistakes than anybody reads": (
        {"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1},
        "; ".join(f"spec.{key}: unknown field; remove it" for key in "abcde") + "; and 2 more",
    ),
}


@pytest.mark.parametrize(("spec", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_names_its_field_and_what_was_expected(spec: dict[str, Any], message: str) -> None:
    assert refusal(document(**spec)) == message


WRONG_DOCUMENTS: dict[str, tuple[object, str]] = {
    "no mapping": ([], f"expected an {KIND}, got a list"),
    "no mode": (
        document() | {"spec": {}},
        "spec.mode: required; write Audit, which removes nothing, or Enforce",
    ),
    "another version": (document() | {"apiVersion": "v1"}, 'apiVersion: expected basekeeper.io/v1alpha1, got "v1"'),
    "another kind": (document() | {"kind": "Pod"}, 'kind: expected ImageCachePolicy, got "Pod"'),
    "a misspelt part": (document() | {"sepc": {}}, "sepc: unknown field; did you mean spec?"),
    "no name": (document() | {"metadata": {}}, "metadata.name: required"),
    "a name that Kubernetes refuses": (
        document() | {"metadata": {"name": "My Policy"}},
        'metadata.name: expected lower-case letters, digits, - and ., got "My Policy"',
    ),
    "what kubectl prints for several": (
        {"apiVersion": "v1", "kind": "List", "items": []},
        f"expected an {KIND}, got a List; give one policy only",
    ),
}


@pytest.mark.parametrize(("what", "message"), WRONG_DOCUMENTS.values(), ids=WRONG_DOCUMENTS)
def test_a_document_that_is_no_policy_is_refused(what: object, message: str) -> None:
    assert refusal(what) == message


def test_a_file_as_kubectl_prints_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(
        """
---
apiVersion: basekeeper.io/v1alpha1
kind: ImageCachePolicy
metadata:
  annotations: {note: x}
  creationTimestamp: 2026-01-01T00:00:00Z
  generation: 3
  name: compute
  uid: 2b1c
spec:
  acknowledged:
  - {path: a, reason: r, until: 2026-12-31T00:00:00Z}
  mode: Enforce
status:
  observedGeneration: 3
"""
    )
    policy = load(file)
    assert (policy.metadata.name, policy.spec.mode) == ("compute", Mode.ENFORCE)
    assert policy.spec.acknowledged[0].until is not None


HEAD = b"apiVersion: basekeeper.io/v1alpha1\nkind: ImageCachePolicy\nmetadata: {name: a}\n"
TWO = "expected one ImageCachePolicy, got 2 documents; give a file of its own to each policy"
FILES = {
    "empty": (b"", "expected one ImageCachePolicy, got nothing; give a file of its own to each policy"),
    "two documents": (b"a: 1\n---\nb: 1\n", TWO),
    "not YAML": (b"a: [", "not the YAML of a policy at line 1: expected the node content, but found '<stream end>'"),
    "a tab": (b"a:\n\tb: 1", "not the YAML of a policy at line 2: found character '\\t' that cannot start any token"),
    "a key twice": (HEAD + b"spec:\n  mode: Audit\n  mode: Enforce\n",
                    'not the YAML of a policy at line 6: the key "mode" twice'),
    "an alias bomb": (b"a: &a [x]\nb: &b [*a, *a]\n",
                      "not the YAML of a policy at line 2: an alias, write the value out"),
    "a tag": (b"a: !!python/object/apply:os.system [x]", "not the YAML of a policy at line 1: a tag, remove it"),
    "a key that is a number": (b"1: a", "not the YAML of a policy at line 1: a key that is 1"),
    "a key that is a list": (b"? [a]\n: b", "not the YAML of a policy at line 1: a key that is a list"),
    "binary": (b"\x7fELF\xff\xfe", "not a text file in UTF-8"),
    "a control character": (b"a: \x01", "not YAML: it has a character that YAML does not allow"),
    "half a number": (b"a: 0b_", "not YAML: a number in it cannot be read"),
    "a number without end": (b"a: " + b"9" * 5000, "not YAML: a number in it cannot be read"),
    "too large": (b"#" * (MAX_BYTES + 1), "larger than 1 MiB, which no ImageCachePolicy is"),
    "too deep": (b"[" * 5000, "nested too deeply"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "message"), FILES.values(), ids=FILES)
def test_a_file_that_is_no_policy_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        load(file)
    assert str(caught.value) == f"{file}: {message}"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"none\.yaml: cannot be read: No such file or directory$"):
        load(tmp_path / "none.yaml")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"cannot be read: Is a directory$"):
        load(tmp_path)


FIELDS = ["mode", "suspend", "interval", "minimumAge", "limits", "nodeSelector", "pinnedImages", "acknowledged", "spec"]
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(["1h", "Audit", "10Gi", UUID])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=4),
    max_leaves=12,
)


def assert_policy_or_one_line(what: object) -> None:
    message = ""
    try:
        to_engine(parse(what, "f"), "node-1")
    except PolicyError as error:
        message = str(error)
    assert len(message.splitlines()) <= 1
    assert "pydantic" not in message


@given(values)
def test_any_value_is_a_policy_or_refused_in_one_line(value: object) -> None:
    assert_policy_or_one_line(value)


@given(st.dictionaries(st.sampled_from(list(PolicySpec.model_json_schema()["properties"])), values, max_size=5))
def test_any_spec_is_a_policy_or_refused_in_one_line(spec: dict[str, Any]) -> None:
    assert_policy_or_one_line(document(**spec))


@settings(max_examples=200)
@given(st.one_of(st.binary(), st.text().map(str.encode), values.map(lambda value: yaml.safe_dump(value).encode())))
def test_any_file_is_a_policy_or_refused_in_one_line(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        load(file)
    assert len(str(caught.value).splitlines()) == 1
