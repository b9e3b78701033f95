"""Durations and sizes: what is read, what is refused and in which words."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from basekeeper.resources.quantities import (
    MAX_DURATION,
    MAX_SIZE,
    QuantityError,
    format_duration,
    parse_duration,
    parse_size,
)

DURATIONS = {
    "hours": ("24h", 86400),
    "minutes": ("40m", 2400),
    "hours and minutes": ("1h30m", 5400),
    "seconds": ("90s", 90),
    "nothing at all": ("0s", 0),
    "milliseconds are no minutes": ("500ms", 0.5),
    "a fraction, as Go takes it": ("1.5h", 5400),
    "microseconds with either letter": ("1us1µs", 2e-6),
    "units in any order, as Go takes them": ("1s1h", 3601),
}


@pytest.mark.parametrize(("text", "seconds"), DURATIONS.values(), ids=DURATIONS)
def test_a_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


REFUSED_DURATIONS = {
    "days": ("1d", 'expected a duration such as 24h (durations have no days: write 24h), got "1d"'),
    "a week of days": ("7d", 'expected a duration such as 24h (durations have no days: write 168h), got "7d"'),
    "a bare number": (24, "expected a duration such as 24h, got 24"),
    "a bare number as text": ("24", 'expected a duration such as 24h, got "24"'),
    "a negative duration": ("-1h", 'expected a duration such as 24h (never negative), got "-1h"'),
    "nothing": (None, "expected a duration such as 24h, got nothing"),
    "empty text": ("", 'expected a duration such as 24h, got ""'),
    "a truth value": (True, "expected a duration such as 24h, got true"),
    "blanks": ("1 h", 'expected a duration such as 24h, got "1 h"'),
    "a line end": ("1h\n", 'expected a duration such as 24h, got "1h\N{REPLACEMENT CHARACTER}"'),
    "digits of other scripts": ("\u0661h", 'expected a duration such as 24h, got "\u0661h"'),
    "more than Go can count": ("9999999h", 'expected a duration of at most 2562047h, got "9999999h"'),
    "a number without end": ("9" * 5000 + "h", f'expected a duration such as 24h, got "{"9" * 40}..."'),
    "a list": (["1h"], "expected a duration such as 24h, got a list"),
}


@pytest.mark.parametrize(("value", "message"), REFUSED_DURATIONS.values(), ids=REFUSED_DURATIONS)
def test_what_is_no_duration_is_refused_in_one_sentence(value: object, message: str) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_duration(value)
    assert str(caught.value) == message


FORMATS = {
    "forty minutes": (2400, "40m"),
    "a day": (86400, "24h"),
    "an hour and a half": (5400, "1h30m"),
    "nothing": (0, "0s"),
    "less than a second": (0.5, "500ms"),
    "a minute and a half": (90, "1m30s"),
    "the longest": (MAX_DURATION, "2562047h"),
}


@pytest.mark.parametrize(("seconds", "text"), FORMATS.values(), ids=FORMATS)
def test_a_duration_is_written_short(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=MAX_DURATION))
def test_a_written_duration_reads_back_to_the_nanosecond(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


SIZES = {
    "binary": ("10Gi", 10 * 2**30),
    "decimal": ("500M", 500 * 10**6),
    "an exponent": ("1e9", 10**9),
    "a lone E is exa": ("1E", 10**18),
    "E with digits is an exponent": ("1E3", 1000),
    "a number": (4096, 4096),
    "a number as text": ("4096", 4096),
    "a fraction that is whole in bytes": ("1.5Ki", 1536),
    "zero": (0, 0),
}


@pytest.mark.parametrize(("value", "size"), SIZES.values(), ids=SIZES)
def test_a_size_is_read_as_kubernetes_reads_it(value: object, size: int) -> None:
    assert parse_size(value) == size


REFUSED_SIZES = {
    "another unit": ("10GB", 'expected a size in bytes such as 10Gi, 500M or 1000000, got "10GB"'),
    "a fraction of a byte": ("0.5", 'expected a size in bytes such as 10Gi, 500M or 1000000, got "0.5"'),
    "a fraction of a byte, in milli": ("500m", 'expected a size in bytes such as 10Gi, 500M or 1000000, got "500m"'),
    "a negative size": (-1, "expected a size in bytes such as 10Gi, 500M or 1000000, got -1"),
    "two suffixes": ("1Me3", 'expected a size in bytes such as 10Gi, 500M or 1000000, got "1Me3"'),
    "a truth value": (True, "expected a size in bytes such as 10Gi, 500M or 1000000, got true"),
    "a float": (1.5, "expected a size in bytes such as 10Gi, 500M or 1000000, got 1.5"),
    "more than 64 bits": ("8Ei", 'expected a size below 8Ei, got "8Ei"'),
    "a number without end": (10**5000, "expected a size below 8Ei, got a very large number"),
}


@pytest.mark.parametrize(("value", "message"), REFUSED_SIZES.values(), ids=REFUSED_SIZES)
def test_what_is_no_size_is_refused_in_one_sentence(value: object, message: str) -> None:
    with pytest.raises(QuantityError) as caught:
        parse_size(value)
    assert str(caught.value) == message


@given(st.one_of(st.text(), st.integers(), st.floats(), st.from_regex(r"[0-9.]{1,9}[kKMGTPEi eE0-9]{0,4}")))
def test_any_value_is_a_size_in_range_or_refused(value: object) -> None:
    with contextlib.suppress(QuantityError):
        assert 0 <= parse_size(value) <= MAX_SIZE
