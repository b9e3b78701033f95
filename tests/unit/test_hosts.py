"""The hosts of one storage: whoever has not answered, or not so that it can be understood, holds everything."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.cache import host_evidence, publication
from basekeeper.cache.evidence import Agreed, ImageUser, Inventory, Kept, Shared, Source, Spawn, Usage, User
from basekeeper.cache.host_evidence import HostEvidence, NoEvidence, Trouble, decode, encode
from basekeeper.cache.hosts import Heard, Hearing, Round, last_signs, merged
from basekeeper.cache.memory import LastSigns, Memory
from basekeeper.cache.plan import Plan, plan
from basekeeper.cache.quarantine_plan import Decision
from basekeeper.cache.settings import HOUR, MinimumAge, Mode, Policy, SharedStorageMode
from basekeeper.cache.verdicts import Reason, Verdict
from tests.unit.judging import CLOCK, DAY, NO_LIMITS, NOW, ORIGINAL, OTHER, cached, removed

ROUND = Round(7, "a", "instance of a")
POLICY = Policy(mode=Mode.ENFORCE, limits=NO_LIMITS, shared_storage=SharedStorageMode.COORDINATE)
FILE, ENTRY = cached(ORIGINAL), removed(OTHER, inode=(1, 77))
SEEN = Inventory(files=(FILE,), entries=(ENTRY,))
ALL = Agreed(frozenset({(ORIGINAL, FILE.inode)}), frozenset({ENTRY.id}))


def evidence(host: str = "b", **other: Any) -> HostEvidence:
    """What a host publishes that needs nothing and stands in nobody's way."""
    fields: dict[str, Any] = {"round": 7, "time": NOW, "skew": 0.0, "leader_lock_seen": True, **other}
    return HostEvidence(host, f"node of {host}", f"instance of {host}", "boot", **fields)


def heard(found: HostEvidence | None, host: str = "b", *, problem: str = "", ago: float = 60.0) -> Heard:
    return Heard(host, found, problem, NOW - ago, "a while ago")


def judged(
    *others: Heard, usage: Usage | None = None, policy: Policy = POLICY, agreed: Agreed | None = ALL, **other: Any
) -> Plan:
    """The leader's plan for one file and one quarantined file that nothing here needs."""
    hearing = Hearing("a", others, **{"round": ROUND, "leads": True, "acts": True, "agreed": agreed, **other})
    return plan(SEEN, merged(usage or Usage(), SEEN, hearing, policy, NOW), policy, Memory(), CLOCK)


def acts(found: Plan) -> tuple[bool, bool]:
    """Whether the file is removed, and the entry purged."""
    return bool(found.removals), bool(found.purges)


def says(found: Plan) -> str:
    return "; ".join(hold.message for hold in found.holds)


def test_what_every_host_has_let_go_goes() -> None:
    assert acts(judged(heard(evidence("b")), heard(evidence("c"), "c"))) == (True, True)
    assert acts(judged()) == (True, True)  # nobody else is known


REGISTRY = {"b": NOW - 60}
RETIRED = replace(POLICY, retired_hosts=frozenset({"b"}))
NOTED = {"b": LastSigns(NOW - HOUR, registered=NOW - 2 * HOUR, published=NOW - 3 * HOUR)}
HELD: dict[str, tuple[dict[str, Any], tuple[Heard, ...], str]] = {
    "registered, and never heard of": ({"usage": Usage(registry=REGISTRY)}, (), "host b has not answered round 7"),
    "registered a year ago": ({"usage": Usage(registry={"b": NOW - 365 * DAY})}, (), "host b has not answered"),
    "another of two domains": (
        {"usage": Usage(registry={"b.one": NOW, "b.two": NOW})},
        (heard(evidence("b.one"), "b.one"),),
        "host b.two has not answered",
    ),
    "a short name that two hosts may have": (
        {"usage": Usage(registry={"b": NOW})},
        (heard(evidence("b.one"), "b.one"), heard(evidence("b.two"), "b.two")),
        "host b has not answered",
    ),
    "an answer to the round before": ({}, (heard(evidence(round=6)),), "host b has not answered round 7"),
    "an answer to a round that there was not": ({}, (heard(evidence(round=8)),), "host b has not answered round 7"),
    "no round at all": ({"round": None}, (heard(evidence(round=0)),), "host b has answered no round yet"),
    "what cannot be understood": ({}, (heard(None, problem="is no complete JSON"),), "is no complete JSON"),
    "a clock behind": ({}, (heard(evidence(skew=301.0)),), "the clock of host b is 301 s behind"),
    "a clock ahead": ({}, (heard(evidence(skew=-HOUR)),), "the clock of host b is 3600 s ahead of"),
    "an own clock ahead": ({"skew": -HOUR}, (heard(evidence()),), "the clock of this host (a) is 3600 s ahead of"),
    "a lock that is not seen": ({}, (heard(evidence(leader_lock_seen=False)),), "file locks do not work between"),
    "Audit": ({}, (heard(evidence(objection="its policy's mode is Audit")),), "its policy's mode is Audit"),
    "trouble there": ({}, (heard(evidence(troubles=(Trouble("libvirt hangs"),))),), "host b: libvirt hangs"),
    "no part in it": ({"problem": "this host cannot publish"}, (heard(evidence()),), "this host cannot publish"),
    "no registry on what others use": (
        {"usage": Usage(registry_problem="does not exist", registry_absent=True)},
        (heard(evidence()),),
        "compute_nodes, does not exist",
    ),
    "a registry that is cut off": (
        {"usage": Usage(registry_problem="is no complete JSON")},
        (),
        "compute_nodes, is no complete JSON",
    ),
    "a node that shares the directories": (
        {"policy": replace(POLICY, shared_with=("node of z",))},
        (heard(evidence()),),
        "node node of z reports the same directories",
    ),
    "retired a moment ago, and registered": (
        {"policy": RETIRED, "usage": Usage(registry=REGISTRY)},
        (),
        "host b is listed in sharedStorage.retiredHosts; that counts from a next pass on",
    ),
    "retired a moment ago, and heard of": (
        {"policy": RETIRED},
        (heard(evidence(round=3)),),
        "retiredHosts; that counts from a next pass on",
    ),
    "retired, but its agent has had no time to answer": (
        {"policy": RETIRED, "retired": {"b": LastSigns(NOW - 59, published=NOW - 60)}},
        (heard(evidence(round=3, resident=True)),),
        "retiredHosts; that counts from a next pass on",
    ),
    "retired, and registered since": (
        {"policy": RETIRED, "retired": NOTED, "usage": Usage(registry=REGISTRY)},
        (),
        "but nova registered it",
    ),
    "retired, and publishing since": (
        {"policy": RETIRED, "retired": NOTED},
        (heard(evidence()),),
        "it published at a while ago, after that was said",
    ),
    "retired before it ever published": (
        {"policy": RETIRED, "retired": {"b": LastSigns(NOW - HOUR)}},
        (heard(evidence()),),
        "it published at",
    ),
    "retired by a short name": (
        {"policy": RETIRED, "usage": Usage(registry={"b.one": NOW - 365 * DAY})},
        (),
        "host b.one has not answered",
    ),
}


@pytest.mark.parametrize("case", HELD)
def test_one_host_that_is_missing_late_or_not_understood_holds_everything(case: str) -> None:
    how, others, message = HELD[case]
    found = judged(*others, heard(evidence("c"), "c"), **how)
    assert acts(found) == (False, False)
    assert message in says(found)


@pytest.mark.parametrize(
    ("ago", "registered", "known"),
    [(26 * HOUR, 26 * HOUR, {}), (3 * HOUR, 2 * HOUR, NOTED)],
    ids=["silent for more than a day", "silent since that was said"],
)
def test_a_host_that_is_gone_for_good_holds_nothing_any_more_whatever_it_said_last(
    ago: float, registered: float, known: dict[str, LastSigns]
) -> None:
    last_words = evidence(round=3, used={ORIGINAL: (User(Source.DOMAIN, "domain 7"),)}, skew=HOUR, resident=True)
    usage = Usage(registry={"B": NOW - registered})
    found = judged(heard(last_words, ago=ago), usage=usage, policy=RETIRED, retired=known)
    assert acts(found) == (True, True)


def test_signs_of_life_are_those_of_the_pass_that_first_met_the_word() -> None:
    usage = Usage(registry={"B": NOW - 5, "c": NOW - 6})
    both = replace(POLICY, retired_hosts=frozenset({"b", "d"}))
    first = last_signs({}, (heard(evidence("d"), "D", ago=7),), usage, both, NOW)
    assert first == {"b": LastSigns(NOW, registered=NOW - 5), "d": LastSigns(NOW, published=NOW - 7)}
    assert last_signs(first, (), Usage(), both, NOW + HOUR) == first
    assert last_signs(first, (), Usage(), POLICY, NOW + HOUR) == {}


def test_a_local_directory_without_registry_and_without_others_is_nobody_elses() -> None:
    usage = Usage(registry_problem="does not exist", registry_absent=True)
    assert acts(judged(usage=usage)) == (True, True)
    assert acts(judged(usage=replace(usage, shared=Shared("nfs4")))) == (False, False)


DOMAIN = (User(Source.DOMAIN, "domain 7"),)
KEPT: dict[str, tuple[HostEvidence, Reason, str]] = {
    "a domain names it": (evidence(used={ORIGINAL: DOMAIN}), Reason.IN_USE_BY_DOMAIN, "domain 7 (host b)"),
    "a disk elsewhere reaches it": (
        evidence(used_files={FILE.inode[1]: (User(Source.OVERLAY, "/mnt/disk"),)}),
        Reason.IN_USE_BY_OVERLAY,
        "/mnt/disk (host b)",
    ),
    "a disk on the share, seen there first": (
        evidence(used={ORIGINAL: (User(Source.OVERLAY, "u/disk"),)}),
        Reason.IN_USE_BY_OVERLAY,
        "needed by u/disk",
    ),
    "qemu runs on it": (evidence(qemu_locks=frozenset({FILE.inode[1]})), Reason.LOCKED_BY_QEMU, "qemu"),
    "a process has it open": (
        evidence(open_files={FILE.inode[1]: "process 5 (rsync)"}),
        Reason.OPEN_IN_PROCESS,
        "process 5 (rsync) (host b)",
    ),
    "a domain was made from it": (
        evidence(images={ORIGINAL: (ImageUser("domain 7", False),)}),
        Reason.IMAGE_OF_DOMAIN,
        "domain 7 (host b)",
    ),
    "an operator pinned it there": (
        evidence(kept={ORIGINAL: Kept(Reason.PINNED, "restored by hand")}),
        Reason.PINNED,
        "host b: restored by hand",
    ),
    "that host saw it in use lately": (
        evidence(kept={ORIGINAL: Kept(Reason.TOO_YOUNG, "unused for 1m", NOW - 60)}),
        Reason.TOO_YOUNG,
        "unused for 1m",
    ),
}


@pytest.mark.parametrize("number", [7, 5])
@pytest.mark.parametrize("case", KEPT)
def test_what_one_host_needs_stays_also_by_what_it_said_before_it_fell_silent(case: str, number: int) -> None:
    found, reason, message = KEPT[case]
    item = judged(heard(replace(found, round=number))).files[0]
    assert (item.verdict, item.reason) == (Verdict.KEEP, reason)
    assert message in item.message


def test_that_a_silent_host_found_a_file_too_young_once_makes_it_no_younger_than_it_is() -> None:
    long_ago = Kept(Reason.TOO_YOUNG, "unused for 1m", NOW - 9 * DAY)
    item = judged(heard(evidence(round=5, kept={ORIGINAL: long_ago}))).files[0]
    assert (item.verdict, item.reason) == (Verdict.HOLD, Reason.SHARED_STORAGE)  # which names the silent host
    assert item.unused_since == NOW - 9 * DAY


def test_a_quarantined_file_that_another_host_needs_goes_back() -> None:
    found = judged(heard(evidence(used={OTHER: DOMAIN})))
    assert [entry.decision for entry in found.entries] == [Decision.RESTORE]


def test_an_age_is_reckoned_by_the_clock_that_differs_most() -> None:
    policy = replace(POLICY, minimum_age=MinimumAge(original=30 * DAY - 100))
    assert acts(judged(heard(evidence(skew=90.0)), policy=policy))[0]
    assert not acts(judged(heard(evidence(skew=-110.0)), policy=policy))[0]


def test_a_directory_whose_domain_another_host_has_is_no_spawn_but_only_by_an_answer_to_this_round() -> None:
    usage = Usage(spawns=(Spawn("u", NOW - 5),))
    claim = {"u": True}
    assert acts(judged(heard(evidence(claimed=claim)), usage=usage)) == (True, True)
    assert merged(usage, SEEN, Hearing("a", (heard(evidence(claimed=claim, round=6)),), ROUND), POLICY, NOW).spawns
    there = Spawn("v", NOW - 5)
    assert acts(judged(heard(evidence(spawns=(there,))))) == (False, False)
    assert acts(judged(heard(evidence(spawns=(there,))), usage=Usage(claimed={"v": False}))) == (True, True)


def test_nothing_goes_that_an_earlier_round_has_not_let_go() -> None:
    found = judged(heard(evidence()), agreed=Agreed())
    assert acts(found) == (False, False)
    assert {item.reason for item in found.files} == {Reason.SHARED_STORAGE}
    other_inode = Agreed(frozenset({(ORIGINAL, (1, 999))}), frozenset())
    assert acts(judged(heard(evidence()), agreed=other_inode)) == (False, False)


names = st.sampled_from([ORIGINAL, OTHER, b"swap_512"])
someone = st.builds(User, st.sampled_from(Source), st.sampled_from(["u/disk", "domain 7"]))
users = st.lists(someone, min_size=1, max_size=2)
found_by_others = st.builds(
    evidence,
    round=st.sampled_from([0, 6, 7, 7, 7, 8]),
    skew=st.sampled_from([0.0, 0.0, -20.0, 299.0, 301.0]),
    leader_lock_seen=st.sampled_from([True, True, True, False]),
    objection=st.sampled_from([None, None, None, "it is in Audit"]),
    troubles=st.sampled_from([(), (), (Trouble("libvirt hangs"),), (Trouble("a lock", frozenset({OTHER})),)]),
    used=st.dictionaries(names, users.map(tuple), max_size=1),
    used_files=st.dictionaries(st.sampled_from([FILE.inode[1], 77]), users.map(tuple), max_size=1),
    qemu_locks=st.frozensets(st.sampled_from([FILE.inode[1], 77, 5]), max_size=1),
    open_files=st.dictionaries(st.sampled_from([FILE.inode[1], 77]), st.just("process 7"), max_size=1),
    spawns=st.lists(st.builds(Spawn, st.sampled_from(["u", "v"]), st.just(NOW - 5)), max_size=1).map(tuple),
    claimed=st.dictionaries(st.sampled_from(["u", "v"]), st.booleans(), max_size=1),
    kept=st.dictionaries(
        names, st.builds(Kept, st.sampled_from([Reason.TOO_YOUNG, Reason.PINNED]), st.just("so")), max_size=1
    ),
    nova_pass_at=st.none() | st.just(NOW - 600),
)
hosts = st.lists(found_by_others | st.none(), max_size=3).map(
    lambda found: tuple(
        heard(one and replace(one, host=host), host, problem="" if one else "is no complete JSON")
        for host, one in zip("bcd", found, strict=False)
    )
)


@given(hosts, st.frozensets(st.sampled_from("bcde"), max_size=4))
def test_nothing_goes_unless_every_known_host_answered_this_round_and_none_stands_in_the_way(
    others: tuple[Heard, ...], registered: frozenset[str]
) -> None:
    found = judged(*others, usage=Usage(registry=dict.fromkeys(registered, NOW - 99 * DAY)))
    fine = [
        one.host
        for one in others
        if one.evidence is not None
        and one.evidence.round == 7
        and abs(one.evidence.skew) <= 300
        and one.evidence.leader_lock_seen
        and one.evidence.objection is None
    ]
    if {*registered, *(one.host for one in others)} - {*fine}:
        assert acts(found) == (False, False)
    for one in others:
        if one.evidence is not None and (ORIGINAL in one.evidence.used or FILE.inode[1] in one.evidence.qemu_locks):
            assert not found.removals
        if one.evidence is not None and (OTHER in one.evidence.used or 77 in one.evidence.used_files):
            assert not found.purges


@given(hosts, hosts)
def test_one_host_more_never_lets_more_go(some: tuple[Heard, ...], more: tuple[Heard, ...]) -> None:
    renamed = tuple(
        replace(one, host=f"{one.host}2", evidence=one.evidence and replace(one.evidence, host=f"{one.host}2"))
        for one in more
    )
    fewer, all_of_them = judged(*some), judged(*some, *renamed)
    claims = any(one.evidence is not None and one.evidence.claimed for one in renamed)
    if not claims:  # that says more about directories, which may end what looked like a spawn
        assert {item.file.name.raw for item in all_of_them.removals} <= {item.file.name.raw for item in fewer.removals}
        assert {item.entry.id for item in all_of_them.purges} <= {item.entry.id for item in fewer.purges}


@given(found_by_others)
def test_evidence_comes_back_as_it_was_published(found: HostEvidence) -> None:
    assert decode(encode(found), found.host) == found


@given(found_by_others, st.data())
def test_a_document_that_was_cut_off_or_lacks_a_field_is_no_evidence(found: HostEvidence, data: st.DataObject) -> None:
    raw = encode(found)
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(NoEvidence):
        decode(raw[:cut], found.host)
    document = json.loads(raw)
    del document[data.draw(st.sampled_from(sorted(document)))]
    with pytest.raises(NoEvidence):
        decode(json.dumps(document).encode(), found.host)


WRONG: dict[str, dict[str, Any]] = {
    "another host": {"host": "c"},
    "another version": {"version": 2},
    "no time": {"time": float("nan")},
    "a time before all": {"time": -5},
    "a skew that is no number": {"skew": "0"},
    "a round that is none": {"round": -1},
    "a flag for a round": {"round": True},
    "a base in use by nobody": {"used": {"x": []}},
    "users of another source": {"used": {"x": [["guess", "me"]]}},
    "a list for a mapping": {"used": ["x"]},
    "a reason to keep that is none": {"kept": {"x": ["Expired", "old", None]}},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_document_with_values_that_cannot_be_is_no_evidence(change: dict[str, Any]) -> None:
    document = json.loads(encode(evidence()))
    with pytest.raises(NoEvidence):
        decode(json.dumps(document | change).encode(), "b")


def test_evidence_that_is_too_large_says_so_and_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_evidence, "MAX_BYTES", 2000)
    found = decode(encode(evidence(claimed={f"directory {n}": True for n in range(200)})), "b")
    assert "no more than 2000 are published" in found.troubles[0].message
    assert acts(judged(heard(found))) == (False, False)


def test_a_host_publishes_what_it_saw_itself_and_what_its_own_policy_and_memory_keep() -> None:
    usage = Usage(by_name={OTHER: DOMAIN}, by_inode={(1, 5): DOMAIN, (2, 6): DOMAIN}, claimed={"u": True})
    young = Memory(last_used={ORIGINAL: NOW - 60})
    told = publication.of_look(evidence(skew=10.0), SEEN, usage, replace(POLICY, suspend=True), young, CLOCK, [b"x"])
    assert told.used == {OTHER: DOMAIN}
    assert told.used_files == {5: DOMAIN}  # what lies on another file system has another's numbers
    assert told.kept[ORIGINAL].reason is Reason.TOO_YOUNG
    assert told.kept[ORIGINAL].since == NOW - 50  # by the file server's clock
    assert (told.objection, told.purged, told.claimed) == ("its policy says suspend: true", (b"x",), {"u": True})
