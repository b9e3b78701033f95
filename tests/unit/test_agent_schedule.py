"""When the next pass is due: about an interval later, soon when something was told, and never all nodes at once."""

import pytest

from basekeeper.agent.schedule import Schedule

INTERVAL = 2400.0


def scheduled(*, held_by_spawns: bool = False) -> Schedule:
    """The schedule after a pass that ended at 1000."""
    schedule = Schedule(0.0)
    schedule.passed(1000.0, INTERVAL, held_by_spawns=held_by_spawns)
    return schedule


def test_a_pass_is_due_an_interval_after_the_last_one_and_not_at_the_same_moment_everywhere() -> None:
    dues = {scheduled().due for _ in range(200)}
    assert all(1000 + INTERVAL * 0.9 <= due <= 1000 + INTERVAL * 1.1 for due in dues)
    assert max(dues) - min(dues) > INTERVAL / 10


def test_what_starting_instances_held_is_tried_again_soon_and_ever_later() -> None:
    schedule, now, waits = Schedule(0.0), 0.0, []
    for _ in range(12):
        schedule.passed(now, INTERVAL, held_by_spawns=True)
        waits.append(schedule.due - now)
        now = schedule.due
    assert waits[0] < 90
    assert waits[2] > waits[0]
    assert min(waits[-3:]) > INTERVAL * 0.6
    assert max(waits) <= INTERVAL * 1.1


def test_a_pass_that_nothing_held_ends_the_haste() -> None:
    schedule = scheduled(held_by_spawns=True)
    schedule.passed(2000.0, INTERVAL)
    assert schedule.due - 2000 > INTERVAL * 0.8
    schedule.passed(9000.0, INTERVAL, held_by_spawns=True)
    assert schedule.due - 9000 < 90


def test_a_short_interval_is_not_made_longer_by_starting_instances() -> None:
    schedule = Schedule(0.0)
    for now in (0.0, 10.0, 20.0):
        schedule.passed(now, 5.0, held_by_spawns=True)
        assert schedule.due - now <= 5.5


def test_what_is_told_makes_a_pass_due_within_seconds_and_never_later_than_it_was() -> None:
    for _ in range(100):
        schedule = scheduled()
        schedule.told(1001.0)
        assert 1001 <= schedule.due <= 1001 + 15
        before = schedule.due
        schedule.told(1002.0)
        assert schedule.due <= before


@pytest.mark.parametrize(("length", "within"), [(8 * 3600.0, 60.0), (60.0, 6.0), (float("inf"), 60.0)])
def test_a_window_that_opens_before_the_next_pass_gets_one_early_in_it_and_not_all_at_once(
    length: float, within: float
) -> None:
    dues = []
    for _ in range(200):
        schedule = scheduled()
        schedule.opens(1000.0, 600.0, length)
        dues.append(schedule.due)
    assert all(1600 < due <= 1600 + within for due in dues)
    assert max(dues) - min(dues) > within / 2


def test_a_window_that_opens_after_the_next_pass_moves_nothing() -> None:
    schedule = scheduled()
    due = schedule.due
    schedule.opens(1000.0, 2 * INTERVAL, 3600.0)
    assert schedule.due == due


def test_a_person_s_wish_is_done_at_once() -> None:
    schedule = scheduled()
    schedule.asked(1001.0)
    assert schedule.due == 1001.0


@pytest.mark.parametrize("seconds", [30.0, 600.0])
def test_what_could_not_be_done_is_tried_again(seconds: float) -> None:
    schedule = scheduled()
    schedule.retry(1001.0, seconds)
    assert seconds * 0.8 <= schedule.due - 1001 <= seconds * 1.2


def test_more_to_do_for_the_disk_s_sake_makes_the_next_pass_due_earlier_and_never_later() -> None:
    for within, least, most in ((30.0, 27.0, 33.0), (0.0, 1.0, 1.1), (9e9, INTERVAL * 0.9, INTERVAL * 1.1)):
        schedule = Schedule(0.0)
        schedule.passed(1000.0, INTERVAL, within=within)
        assert least <= schedule.due - 1000 <= most
