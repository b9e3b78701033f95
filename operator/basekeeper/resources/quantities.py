"""Durations and sizes as Kubernetes writes them, and as the numbers that the engine counts with.

A duration is a string of Go (`24h`, `1h30m`, `500ms`); a size is a Kubernetes quantity (`10Gi`, `500M`,
`1e9`) or a whole number. No library of ours reads either, and each is a page, so they are read here. What is
accepted is closed: a bare number in a duration could be seconds or hours, and a guess either way would
remove files too early.
"""

import re
from decimal import Decimal
from fractions import Fraction

_DURATION_UNITS = {
    "h": Fraction(3600),
    "m": Fraction(60),
    "s": Fraction(1),
    "ms": Fraction(1, 1000),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "ns": Fraction(1, 10**9),
}
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(h|ms|m|s|us|µs|ns))+$"
"""What a duration looks like: the pattern of the custom resource's fields."""
_DURATION = re.compile(DURATION_PATTERN)
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(h|ms|m|s|us|µs|ns)")
_DAYS = re.compile(r"([0-9]{1,6})d")
MAX_DURATION = float(2562047 * 3600)
"""Seconds; Go counts nanoseconds in 64 bits and ends here, at `2562047h`."""

_SIZE_SUFFIXES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "P": 10**15,
    "E": 10**18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}
SIZE_PATTERN = r"^[0-9]+(\.[0-9]+)?([kMGTPE]|[KMGTPE]i|[eE]\+?[0-9]{1,2})?$"
"""What a size given as a string looks like: the pattern of the custom resource's fields."""
_SIZE = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)(?P<suffix>[kMGTPE]|[KMGTPE]i|)(?P<exponent>[eE]\+?[0-9]{1,2})?")
MAX_SIZE = 2**63 - 1
"""Bytes; Kubernetes counts them in 64 bits."""

_LONGEST = 64
"""Characters of a number that are looked at: more is no duration or size of this world."""


class QuantityError(ValueError):
    """A duration or a size that cannot be read; the message says what is expected, in one line."""


def shown(value: object) -> str:
    """`value` as an error message shows it: one short line, in YAML's words rather than Python's."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in value[:41])
        return f'"{text[:40]}..."' if len(value) > 40 else f'"{text}"'
    if isinstance(value, int | float):
        # A number of more than 4300 digits has no text in Python, and no place in a message.
        return str(value) if abs(value) < 10**20 or isinstance(value, float) else "a very large number"
    if isinstance(value, dict):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"


def parse_duration(value: object) -> float:
    """Seconds in a duration string such as `1h30m`.

    Raises QuantityError for anything else: numbers, days, negative durations, more than `MAX_DURATION`.
    """
    if not isinstance(value, str) or len(value) > _LONGEST or not _DURATION.fullmatch(value):
        raise QuantityError(f"expected a duration such as 24h{_hint(value)}, got {shown(value)}")
    parts = _DURATION_PART.findall(value)
    seconds = sum((Fraction(number) * _DURATION_UNITS[unit] for number, unit in parts), Fraction())
    if seconds > MAX_DURATION:
        raise QuantityError(f"expected a duration of at most 2562047h, got {shown(value)}")
    return float(seconds)


def _hint(value: object) -> str:
    if isinstance(value, str) and (days := _DAYS.fullmatch(value)):
        return f" (durations have no days: write {int(days[1]) * 24}h)"
    if isinstance(value, str) and value.startswith("-"):
        return " (never negative)"
    return ""


def format_duration(seconds: float) -> str:
    """Write a duration in the usual short way: 2400 is `40m`, 5400 `1h30m`, 0 `0s`, 0.5 `500ms`.

    Takes seconds, at least 0 and at most `MAX_DURATION`; what is finer than a nanosecond is rounded.
    """
    nanoseconds = round(Fraction(seconds) * 10**9)
    parts = []
    for unit in ("h", "m", "s", "ms", "us", "ns"):
        count, nanoseconds = divmod(nanoseconds, int(_DURATION_UNITS[unit] * 10**9))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_size(value: object) -> int:
    """Bytes in a Kubernetes quantity such as `10Gi`, or in a whole number.

    Raises QuantityError for anything else: fractions of a byte, negative sizes, more than `MAX_SIZE`.
    """
    bytes_ = _whole_bytes(value)
    if bytes_ is None:
        raise QuantityError(f"expected a size in bytes such as 10Gi, 500M or 1000000, got {shown(value)}")
    if bytes_ > MAX_SIZE:
        raise QuantityError(f"expected a size below 8Ei, got {shown(value)}")
    return bytes_


def _whole_bytes(value: object) -> int | None:
    """`value` in bytes, or None if it is no size."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value if value >= 0 else None
    if not isinstance(value, str) or len(value) > _LONGEST:
        return None
    match = _SIZE.fullmatch(value)
    if not match or (match["suffix"] and match["exponent"]):
        return None
    exponent = int(match["exponent"][1:]) if match["exponent"] else 0
    exact = Fraction(Decimal(match["number"])) * _SIZE_SUFFIXES[match["suffix"]] * 10**exponent
    return int(exact) if exact.denominator == 1 else None
