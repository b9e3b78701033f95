"""`maintenanceWindows`: when a policy lets removals, purges and verification run.

The API server checks what a schedule looks like, which is what `cron(5)` has, with names, and `L`, `LW` and `SUN#1` for
the last day, the last working day and the first Sunday of a month. Whether such a day ever comes, and whether there is
such a zone, the model finds out.
"""

import re
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from basekeeper.cache import windows
from basekeeper.cache.moments import timestamp

from .fields import Duration, Strict, cel
from .quantities import shown

MAX_WINDOWS = 16
_LEAST = "1m"


def _list_of(value: str, *, also: str = "") -> str:
    """The pattern of a cron field whose single values look like `value`; `also` are forms that take no step."""
    item = rf"(\*|({value})(-({value}))?)(/[1-9][0-9]?)?"
    item = rf"({item}|{also})" if also else rf"({item})"
    return rf"{item}(,{item})*"


_MINUTE = _list_of("[0-5]?[0-9]")
_HOUR = _list_of("[01]?[0-9]|2[0-3]")
_DAY = _list_of("0?[1-9]|[12][0-9]|3[01]", also="LW?")
_MONTH = _list_of("0?[1-9]|1[0-2]|(?i:JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC)")
_WEEKDAY = "[0-7]|(?i:SUN|MON|TUE|WED|THU|FRI|SAT)"
SCHEDULE_PATTERN = rf"^{' '.join((_MINUTE, _HOUR, _DAY, _MONTH, _list_of(_WEEKDAY, also=f'({_WEEKDAY})(#[1-5]|L)')))}$"
_SCHEDULE = re.compile(SCHEDULE_PATTERN)
_LONGEST_SCHEDULE = 128
ZONE_PATTERN = r"^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$"
_ZONE = re.compile(ZONE_PATTERN)
_LONGEST_ZONE = 64


_IS_A_ZONE = cel(
    # The server looks the zone up; one that it does not know is an error, in which it says so before this sentence.
    ("timestamp('2000-01-01T12:00:00Z').getFullYear(self) == 2000", "expected the name of a time zone")
)


def _read_schedule(value: object) -> str:
    if isinstance(value, str) and len(value) <= _LONGEST_SCHEDULE and _SCHEDULE.fullmatch(value):
        if (why := windows.never_opens(value)) is None:
            return value
        raise ValueError(f"expected a schedule that comes round, got {shown(value)}: {why}")
    raise ValueError(
        "expected five cron fields (minute, hour, day of month, month, day of week) such as "
        f'"30 1 * * SAT", got {shown(value)}'
    )


def _read_zone(value: object) -> str:
    if isinstance(value, str) and len(value) <= _LONGEST_ZONE and _ZONE.fullmatch(value):
        try:
            ZoneInfo(value)
        except (LookupError, OSError, ValueError):
            pass  # no file of that name, a directory, or a file that is no zone; it ends below like any other mistake
        else:
            return value
    raise ValueError(f"expected the name of a time zone such as Europe/Berlin, got {shown(value)}")


def _not_empty(seconds: float) -> float:
    if seconds == 0:
        raise ValueError("expected a duration above 0s; nothing could ever run")
    return seconds


class MaintenanceWindow(Strict):
    """A recurring time in which removals, purges and verification may run."""

    schedule: Annotated[
        str,
        BeforeValidator(_read_schedule),
        WithJsonSchema({"type": "string", "pattern": SCHEDULE_PATTERN, "maxLength": _LONGEST_SCHEDULE}),
    ]
    """When it opens: five fields as cron has them (minute, hour, day of month, month, day of week), such as
    30 1 * * SAT. A time that a change of clocks skips opens it right after the change, one that comes twice opens it
    once."""
    duration: Annotated[
        Duration,
        AfterValidator(_not_empty),
        Field(
            json_schema_extra=cel(
                (f"duration(self) >= duration('{_LEAST}')", f"expected a duration from {_LEAST} to 2562047h")
            )
        ),
    ]
    """How long it stays open in time that really passes, a duration of at least 1m. Windows that overlap join."""
    time_zone: Annotated[
        str,
        BeforeValidator(_read_zone),
        WithJsonSchema({"type": "string", "pattern": ZONE_PATTERN, "maxLength": _LONGEST_ZONE, **_IS_A_ZONE}),
    ] = "UTC"
    """The time zone of the schedule by its IANA name, such as Europe/Berlin. Default UTC."""

    def to_engine(self) -> windows.Window:
        """The window as the engine reckons with it."""
        return windows.Window(self.schedule, self.duration, ZoneInfo(self.time_zone))


def told(opening: windows.Opening) -> dict[str, Any]:
    """Whether a window is open, as a status and a document say it."""
    times = {"until": opening.until, "opensAt": opening.opens_at}
    return {"open": opening.open} | {name: timestamp(at) for name, at in times.items() if at is not None}
