"""When a status is written: when it is news, every half hour, and again later where that failed."""

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from basekeeper.agent import reporting
from basekeeper.agent.reporting import HEARTBEAT, Reporter
from basekeeper.cluster.api import Api, ApiAway, ApiError, ApiRefused, NotFound


@dataclass
class Server:
    """An API server that keeps what is applied, or fails."""

    failure: ApiError | None = None
    writes: list[dict[str, Any]] = field(default_factory=list)

    def apply(self, _resource: object, name: str, content: dict[str, Any], *, subresource: str) -> dict[str, Any]:
        assert (name, subresource, list(content)) == ("node-a", "status", ["status"])
        if self.failure is not None:
            raise self.failure
        self.writes.append(content["status"])
        return {}


@dataclass
class Clock:
    now: float = 10_000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_800_000_000.0 + self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reporting, "time", clock)
    return clock


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def reporter(server: Server, clock: Clock) -> Reporter:
    assert clock.now
    return Reporter(cast("Api", server), "node-a")


def said(word: str, at: int = 0) -> dict[str, Any]:
    return {"agentVersion": word, "heartbeatTime": f"2027-01-01T00:00:{at:02}Z", "lastPass": {"time": str(at)}}


def test_only_news_is_written(reporter: Reporter, server: Server, clock: Clock) -> None:
    assert reporter.report(said("one"))
    clock.now += 60
    assert not reporter.report(said("one", 1))
    assert reporter.report(said("two", 2))
    assert server.writes == [said("one"), said("two", 2)]


def test_without_news_the_latest_is_written_every_half_hour(reporter: Reporter, server: Server, clock: Clock) -> None:
    start = clock.now
    reporter.report(said("one"))
    moments: list[float] = []
    while clock.now < start + 8 * HEARTBEAT:
        clock.now += 60
        if (clock.now - start) % 300 == 0:
            reporter.report(said("one", int(clock.now) % 60))
        if len(server.writes) > len(moments) + 1 or reporter.again():
            moments.append(clock.now)
    gaps = [after - before for before, after in zip([start, *moments], moments, strict=False)]
    assert max(gaps) <= HEARTBEAT
    assert min(gaps) >= HEARTBEAT / 2


def test_a_status_that_somebody_changed_is_written_again(reporter: Reporter, server: Server) -> None:
    reporter.report(said("one"))
    reporter.saw({"status": said("else")})
    assert reporter.report(said("one"))
    reporter.saw({"metadata": {}})  # no status at all any more
    assert reporter.report(said("one"))
    assert len(server.writes) == 3


FAILURES = {"away": ApiAway("503"), "refused": ApiRefused("403")}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_what_could_not_be_written_is_tried_again_ever_later(
    reporter: Reporter, server: Server, clock: Clock, failure: ApiError
) -> None:
    server.failure = failure
    assert not reporter.report(said("one"))
    assert reporter.last_error == str(failure)
    waits = []
    for _ in range(12):
        at = reporter.next_at()
        assert at is not None
        assert not reporter.again()  # too early: nothing is asked
        waits.append(at - clock.now)
        clock.now = at
        assert not reporter.again()
    assert waits[0] < 3
    assert 60 < waits[-1] <= 160
    server.failure = None
    clock.now = reporter.next_at() or 0.0
    assert reporter.again()
    assert not reporter.last_error
    assert [write["agentVersion"] for write in server.writes] == ["one"]
    assert (reporter.next_at() or 0.0) - clock.now > HEARTBEAT / 2


def test_a_pass_that_finds_what_is_there_ends_the_attempts(reporter: Reporter, server: Server, clock: Clock) -> None:
    reporter.report(said("one"))
    server.failure = ApiAway("503")
    reporter.report(said("two"))
    reporter.report(said("one"))
    assert (reporter.next_at() or 0.0) - clock.now > HEARTBEAT / 2
    assert reporter.last_error is None


def test_an_object_that_is_gone_gets_no_status_until_it_is_back(reporter: Reporter, server: Server) -> None:
    reporter.report(said("one"))
    server.failure = NotFound("404")
    assert not reporter.report(said("two"))
    assert (reporter.next_at(), dict(reporter.there), reporter.last_error) == (None, {}, None)
    assert not reporter.again()
    server.failure = None
    reporter.saw({"metadata": {"uid": "another"}})
    assert reporter.report(said("one"))


def test_a_restarted_agent_writes_once(reporter: Reporter, server: Server) -> None:
    reporter.saw({"status": said("one")})
    assert reporter.report(said("one", 9))
    assert not reporter.report(said("one", 10))
    assert len(server.writes) == 1
