"""Maintenance windows: schedules of local time, lengths of real time, on days on which clocks are changed as well."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from basekeeper.cache.windows import Window, closing, is_open, look, never_opens
from tests.unit.judging import DAY, HOUR, MINUTE


def window(schedule: str, duration: float = HOUR, zone: str = "UTC") -> Window:
    """A window from its three words."""
    return Window(schedule, duration, ZoneInfo(zone))


def at(text: str) -> float:
    """Unix seconds of a time with its offset, or of UTC."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def spans(windows: Sequence[Window], since: str, until: str) -> list[tuple[str, str]]:
    """When windows open and close between two times, in UTC, as `look` tells it one after the other."""
    found, now, end = [], at(since), at(until)
    while now < end:
        opening = look(windows, now)
        if not opening.open:
            if opening.opens_at is None or opening.opens_at >= end:
                break
            now = opening.opens_at
            continue
        assert opening.until is not None
        found.append((_text(now), _text(opening.until)))
        now = opening.until
    return found


def _text(instant: float) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%m-%d %H:%M:%S").removesuffix(":00")


NIGHTLY = {
    "UTC knows no change": ("UTC", "2026-03-28", "2026-03-31", ["03-28 02:30", "03-29 02:30", "03-30 02:30"]),
    "Berlin, spring: 2:30 is skipped, and opens at 3:00": (
        "Europe/Berlin", "2026-03-28", "2026-03-31", ["03-28 01:30", "03-29 01:00", "03-30 00:30"],
    ),
    "Berlin, autumn: 2:30 comes twice, and opens once": (
        "Europe/Berlin", "2026-10-24", "2026-10-27", ["10-24 00:30", "10-25 00:30", "10-26 01:30"],
    ),
    "New York, spring": (
        "America/New_York", "2026-03-07", "2026-03-10", ["03-07 07:30", "03-08 07:00", "03-09 06:30"],
    ),
    "New York, autumn: 2:30 comes once, after the change": (
        "America/New_York", "2026-10-31", "2026-11-03", ["10-31 06:30", "11-01 07:30", "11-02 07:30"],
    ),
    "Lord Howe, spring: half an hour is skipped, 2:30 is just after it": (
        "Australia/Lord_Howe", "2026-10-02", "2026-10-05", ["10-02 16:00", "10-03 15:30", "10-04 15:30"],
    ),
    "Casablanca, where clocks are put back for Ramadan and 2:30 comes twice": (
        "Africa/Casablanca", "2026-02-14", "2026-02-17", ["02-14 01:30", "02-15 01:30", "02-16 02:30"],
    ),
    "Casablanca, after Ramadan: 2:30 is skipped": (
        "Africa/Casablanca", "2026-03-21", "2026-03-24", ["03-21 02:30", "03-22 02:00", "03-23 01:30"],
    ),
    "Samoa, which skipped a whole day: it opens when that is over": (
        "Pacific/Apia", "2011-12-29", "2012-01-01", ["12-29 12:30", "12-30 10:00", "12-30 12:30", "12-31 12:30"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("zone", "since", "until", "starts"), NIGHTLY.values(), ids=NIGHTLY)
def test_a_nightly_window_opens_once_each_night_also_when_clocks_are_changed(
    zone: str, since: str, until: str, starts: list[str]
) -> None:
    found = spans([window("30 2 * * *", 20 * MINUTE, zone)], since, until)
    assert [start for start, _ in found] == starts


@pytest.mark.parametrize(("zone", "since", "until", "_starts"), NIGHTLY.values(), ids=NIGHTLY)
def test_a_window_is_open_for_its_duration_of_real_time(zone: str, since: str, until: str, _starts: list[str]) -> None:
    found = spans([window("30 2 * * *", 95 * MINUTE, zone)], since, until)
    lengths = {datetime.strptime(e, "%m-%d %H:%M") - datetime.strptime(s, "%m-%d %H:%M") for s, e in found}  # noqa: DTZ007
    assert lengths == {timedelta(minutes=95)}


OF_A_DAY = {
    "every hour of the spring change: of the skipped one nothing is left to open": (
        window("0 * * * *", 10 * MINUTE, "Europe/Berlin"), "2026-03-29T00:00", "2026-03-29T03:00",
        [("03-29 00:00", "03-29 00:10"), ("03-29 01:00", "03-29 01:10"), ("03-29 02:00", "03-29 02:10")],
    ),
    "every hour of the autumn change: the second time the hour opens nothing": (
        window("0 * * * *", 10 * MINUTE, "Europe/Berlin"), "2026-10-24T23:30", "2026-10-25T03:00",
        [("10-25 00:00", "10-25 00:10"), ("10-25 02:00", "10-25 02:10")],
    ),
    "several skipped starts are one": (
        window("0,15,30 2 * * *", 5 * MINUTE, "Europe/Berlin"), "2026-03-29T00:00", "2026-03-29T03:00",
        [("03-29 01:00", "03-29 01:05")],
    ),
    "Lord Howe, autumn: half an hour comes twice": (
        window("45 1 * * *", 20 * MINUTE, "Australia/Lord_Howe"), "2026-04-04T00:00", "2026-04-05T23:00",
        [("04-04 14:45", "04-04 15:05"), ("04-05 15:15", "04-05 15:35")],
    ),
    "Lord Howe, spring: 2:10 is skipped": (
        window("10 2 * * *", 20 * MINUTE, "Australia/Lord_Howe"), "2026-10-03T00:00", "2026-10-04T23:00",
        [("10-03 15:30", "10-03 15:50"), ("10-04 15:10", "10-04 15:30")],
    ),
    "over the spring change four real hours end at six on the wall": (
        window("0 1 * * SUN", 4 * HOUR, "Europe/Berlin"), "2026-03-28T00:00", "2026-03-30T00:00",
        [("03-29 00:00", "03-29 04:00")],
    ),
    "over the autumn change they end at four": (
        window("0 1 * * SUN", 4 * HOUR, "Europe/Berlin"), "2026-10-24T00:00", "2026-10-26T00:00",
        [("10-24 23:00", "10-25 03:00")],
    ),
    "a leap day comes every four years": (
        window("0 0 29 2 *"), "2026-01-01", "2033-01-01",
        [("02-29 00:00", "02-29 01:00"), ("02-29 00:00", "02-29 01:00")],
    ),
    "the 31st, in the months that have one": (
        window("0 0 31 * *"), "2026-01-15", "2026-08-15",
        [(f"{month:02}-31 00:00", f"{month:02}-31 01:00") for month in (1, 3, 5, 7)],
    ),
    "the last day of each month": (
        window("0 23 L * *", 2 * HOUR), "2028-01-15", "2028-04-15",
        [("01-31 23:00", "02-01 01:00"), ("02-29 23:00", "03-01 01:00"), ("03-31 23:00", "04-01 01:00")],
    ),
    "the first Sunday of a month": (
        window("0 3 * * SUN#1"), "2026-11-02", "2027-01-10",
        [("12-06 03:00", "12-06 04:00"), ("01-03 03:00", "01-03 04:00")],
    ),
    "a day of the month or of the week, as cron has it": (
        window("0 0 15 * FRI"), "2026-11-10", "2026-11-21",
        [("11-13 00:00", "11-13 01:00"), ("11-15 00:00", "11-15 01:00"), ("11-20 00:00", "11-20 01:00")],
    ),
    "less than a minute": (
        window("0 0 * * *", 1.0), "2026-11-10", "2026-11-11", [("11-10 00:00", "11-10 00:00:01")],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("one", "since", "until", "expected"), OF_A_DAY.values(), ids=OF_A_DAY)
def test_a_window_opens_and_closes_when_its_schedule_says(
    one: Window, since: str, until: str, expected: list[tuple[str, str]]
) -> None:
    assert spans([one], since, until) == expected


def test_windows_that_overlap_or_touch_are_one() -> None:
    joined = [window("0 1 * * *", 2 * HOUR), window("0 2 * * *", 3 * HOUR), window("0 5 * * *", HOUR)]
    assert spans(joined, "2026-11-10", "2026-11-11") == [("11-10 01:00", "11-10 06:00")]
    assert spans([window("0 */2 * * *", 3 * HOUR), window("0 0 * * *")], "2026-11-10", "2026-11-10") == []


def test_windows_without_a_gap_have_no_end() -> None:
    opening = look([window("0 * * * *", HOUR)], at("2026-11-10T10:20"))
    assert (opening.open, opening.until, opening.opens_at) == (True, None, None)


def test_without_windows_it_is_always_open() -> None:
    opening = look((), 0.0)
    assert (opening.open, opening.until, opening.closed) == (True, None, None)
    assert is_open((), 0.0)


def test_a_window_that_is_closed_says_when_the_next_one_opens() -> None:
    windows = [window("0 1 * * *"), window("0 22 * * *", HOUR, "Europe/Berlin")]
    assert look(windows, at("2026-11-10T12:00")).closed == (
        "no maintenance window is open (maintenanceWindows); the next one opens at 2026-11-10T21:00:00Z"
    )


def test_it_is_open_from_the_first_moment_and_no_longer_than_the_last() -> None:
    windows = [window("0 1 * * *")]
    opens, closes = at("2026-11-10T01:00"), at("2026-11-10T02:00")
    instants = (opens - 0.001, opens, closes - 0.001, closes)
    assert [is_open(windows, instant) for instant in instants] == [False, True, True, False]
    assert [look(windows, instant).open for instant in instants] == [False, True, True, False]


@pytest.mark.parametrize(
    ("one", "instant"),
    [
        (window("45 2 * * *", 90 * MINUTE, "Europe/Berlin"), "2026-10-25T01:10"),
        (window("50 1 * * *", 40 * MINUTE, "Australia/Lord_Howe"), "2026-04-04T15:05"),
    ],
    ids=["Berlin", "Lord Howe"],
)
def test_a_window_stays_open_while_clocks_show_a_time_before_its_start_once_more(one: Window, instant: str) -> None:
    assert is_open([one], at(instant))


def test_what_began_in_a_window_hears_that_it_has_closed_and_what_did_not_hears_nothing() -> None:
    windows = [window("0 1 * * *")]
    inside, outside = at("2026-11-10T01:30"), at("2026-11-10T12:00")
    assert [closing(windows, inside)(now) for now in (inside, inside + 29 * MINUTE, inside + HOUR)] == [
        False, False, True,
    ]  # fmt: skip
    assert not closing(windows, outside)(outside + HOUR)
    assert not closing((), inside)(outside)


NEVER = {
    "0 0 30 2 *": "bad day-of-month",
    "0 0 31 4,6,9,11 *": "bad day-of-month",
    "0 0 * * FRI-SUN": "bad day-of-week",
    "0 0 * 13 *": "bad month",
    "@daily": "wrong number of fields",
    "* * * *": "wrong number of fields",
    "": "wrong number of fields",
}


@pytest.mark.parametrize(("schedule", "why"), NEVER.items())
def test_a_schedule_that_never_comes_round_is_known(schedule: str, why: str) -> None:
    assert never_opens(schedule) == why


@pytest.mark.parametrize("schedule", ["0 0 29 2 *", "0 0 * feb Mon#5", "59 23 31 12 *", "*/5 * * * *", "0 0 LW * *"])
def test_a_rare_schedule_is_one(schedule: str) -> None:
    assert never_opens(schedule) is None


# --- against a minute by minute count ---------------------------------------------------------------------------------

ZONES = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC", "Pacific/Apia"]
CHANGES = ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01", "2026-04-04", "2026-10-03", "2026-02-15",
           "2026-03-22", "2011-12-30", "2028-02-29", "2026-06-30"]  # fmt: skip
minutes = st.sampled_from(["0", "30", "15,45", "*/20", "*", "59"])
hours = st.sampled_from(["*", "0", "1", "2", "1-3", "2,14", "23", "*/6"])
days = st.sampled_from(["* * *", "* * SUN", "29 2 *", "L * *", "* 3,10 *", "1,15 * SAT"])
durations = st.sampled_from([MINUTE, 10 * MINUTE, 45 * MINUTE, HOUR, 95 * MINUTE, 5 * HOUR, 26 * HOUR])
some_windows = st.builds(
    lambda minute, hour, day, duration, zone: window(f"{minute} {hour} {day}", duration, zone),
    minutes, hours, days, durations, st.sampled_from(ZONES),
)  # fmt: skip


def counted(one: Window, since: float, until: float) -> set[float]:
    """The minutes at which a window is open, by going through every minute that a clock on the wall shows."""
    starts: list[float] = []
    wall, last = datetime.fromtimestamp(since - one.duration - 2 * DAY, UTC).replace(second=0), until + 2 * DAY
    shown: set[datetime] = set()
    before = wall.astimezone(one.zone).replace(tzinfo=None)
    while wall.timestamp() < last:
        reading = wall.astimezone(one.zone).replace(tzinfo=None)
        passed = [before + timedelta(minutes=step) for step in range(1, int((reading - before).total_seconds() // 60))]
        for local in (*passed, reading):
            if local not in shown and next(CronSim(one.schedule, local - timedelta(seconds=1))) == local:
                starts.append(wall.timestamp())
            shown.add(local)
        before = reading
        wall += timedelta(minutes=1)
    instants = [since + MINUTE * step for step in range(int((until - since) // MINUTE))]
    return {now for now in instants if any(start <= now < start + one.duration for start in starts)}


@settings(max_examples=15, deadline=None)
@given(st.lists(some_windows, min_size=1, max_size=3), st.sampled_from(CHANGES), st.sampled_from([6, 20]))
def test_it_is_open_at_an_instant_exactly_if_some_start_lies_less_than_a_duration_before(
    windows: list[Window], day: str, length: int
) -> None:
    since = at(day) - 4 * HOUR
    until = since + length * HOUR
    expected = set().union(*(counted(one, since, until) for one in windows))
    instants = [since + MINUTE * step for step in range(int((until - since) // MINUTE))]
    assert {now for now in instants if is_open(windows, now)} == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(some_windows, min_size=1, max_size=3), st.sampled_from(CHANGES), st.floats(-2 * DAY, 2 * DAY))
def test_what_is_told_of_the_next_change_is_the_next_change(windows: list[Window], day: str, offset: float) -> None:
    now = at(day) + offset
    opening = look(windows, now)
    assert opening.open == is_open(windows, now)
    change = opening.until if opening.open else opening.opens_at
    if change is None:
        return
    assert change > now
    assert is_open(windows, change) is not opening.open
    between = [now + (change - now) * part / 97 for part in range(97)]
    between = [instant for instant in between if change - instant > 1e-6]  # what is nearer is the same for a datetime
    assert {is_open(windows, instant) for instant in between} <= {opening.open}
