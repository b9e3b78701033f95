"""Maintenance windows: when removals, purges and verification may run. Pure: every instant is an argument.

A schedule speaks of what a clock on the wall shows, a window's length of time that really passes. Between the two lie
the days on which clocks are changed, so a start is first found on the wall and only then becomes an instant: one that
the change skips is right after it, one that comes twice is the first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from .moments import timestamp

_MOST_JOINED = 200
"""Windows in a row of which none closes before the next one opens, after which no end is looked for."""
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Window:
    """One recurring window."""

    schedule: str
    """When it opens: the five fields of cron, in the time of `zone`; one that comes round."""
    duration: float
    """Seconds that it stays open."""
    zone: tzinfo


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether a window is open at some instant; all times are Unix seconds."""

    open: bool
    until: float | None = None
    """When it closes, if it is open and an end is in sight."""
    opens_at: float | None = None
    """When the next one opens, if none is."""

    @property
    def closed(self) -> str | None:
        """Why nothing is removed now, in a sentence; None while a window is open."""
        if self.open:
            return None
        when = "" if self.opens_at is None else f"; the next one opens at {timestamp(self.opens_at)}"
        return f"no maintenance window is open (maintenanceWindows){when}"


def look(windows: Sequence[Window], now: float) -> Opening:
    """Whether a window is open at `now`, and until when, or when the next one opens. Without windows always open."""
    if not windows:
        return Opening(open=True)
    if not is_open(windows, now):
        starts = [start for window in windows if (start := _next_start(window, now)) is not None]
        return Opening(open=False, opens_at=min(starts, default=None))
    until = now
    for _ in range(_MOST_JOINED):
        later = max(_end(window, until) for window in windows)
        if later <= until:
            return Opening(open=True, until=until)
        until = later
    return Opening(open=True)


def is_open(windows: Sequence[Window], now: float) -> bool:
    """Whether removals and verification may run at `now` (Unix seconds). Without windows they always may."""
    return not windows or any(_end(window, now) > now for window in windows)


def closing(windows: Sequence[Window], began: float) -> Callable[[float], bool]:
    """Tells of later instants whether what was open at `began` is closed; never, if nothing was."""
    if not is_open(windows, began):
        return lambda _now: False
    return lambda now: not is_open(windows, now)


def never_opens(schedule: str) -> str | None:
    """Why a schedule of five cron fields never opens a window; None: it does."""
    try:
        first = next(CronSim(schedule, datetime(2000, 1, 1)), None)  # noqa: DTZ001 (what a clock on the wall shows)
    except CronSimError as error:
        return str(error).lower()
    return "no such day ever comes" if first is None else None


def _end(window: Window, now: float) -> float:
    """When the window that opened last, at or before `now`, closes, or has; minus infinity: none ever opened."""
    start = _last_start(window, now)
    return float("-inf") if start is None else start + window.duration


def _last_start(window: Window, now: float) -> float | None:
    here = datetime.fromtimestamp(now, window.zone)
    reading = here.replace(tzinfo=None, fold=0)
    if here.fold:  # clocks were put back: what they would show else has all come already, as far as it is not ahead
        reading += _offset(here.replace(fold=0)) - _offset(here)
    for local in CronSim(window.schedule, reading.replace(microsecond=0) + _SECOND, reverse=True):
        if (start := _instant(local, window.zone)) <= now:
            return start
    return None


def _next_start(window: Window, now: float) -> float | None:
    reading = datetime.fromtimestamp(now, window.zone).replace(tzinfo=None, fold=0)
    for local in CronSim(window.schedule, reading):
        if (start := _instant(local, window.zone)) > now:  # after clocks were put back some have come already
            return start
    return None


def _instant(local: datetime, zone: tzinfo) -> float:
    """When clocks of a zone show `local` for the first time, or are past it for the first time; Unix seconds."""
    shown = local.replace(tzinfo=zone)
    instant = shown.timestamp()
    if datetime.fromtimestamp(instant, zone).replace(tzinfo=None) == local:
        return instant
    # Clocks were put forward, over this time. By the offset before that it lies after the change, by the other before.
    after, before = int(instant), int(shown.replace(fold=1).timestamp())
    offset = _offset(datetime.fromtimestamp(after, zone))
    while after - before > 1:
        middle = (after + before) // 2
        if _offset(datetime.fromtimestamp(middle, zone)) == offset:
            after = middle
        else:
            before = middle
    return float(after)


def _offset(moment: datetime) -> timedelta:
    return moment.utcoffset() or timedelta()
