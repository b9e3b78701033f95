"""An error has a class, whatever words it was told on in."""

import errno

import pytest

from basekeeper.cache.acts import Failure, failure_of
from basekeeper.cache.files import Unobservable
from basekeeper.cache.locks import LockError

CLASSES = {
    errno.ENOSPC: Failure.NO_SPACE,
    errno.EDQUOT: Failure.NO_SPACE,
    errno.EROFS: Failure.READ_ONLY,
    errno.EACCES: Failure.NOT_PERMITTED,
    errno.EPERM: Failure.NOT_PERMITTED,
    errno.EIO: Failure.INPUT_OUTPUT,
    errno.EUCLEAN: Failure.INPUT_OUTPUT,
    errno.ESTALE: Failure.STALE,
    errno.ETIMEDOUT: Failure.STALE,
    errno.EBUSY: Failure.OTHER,
}


def told_on(error: OSError) -> Exception:
    """The error as a lock, and then a look, tells it."""
    try:
        try:
            raise LockError("the lock could not be taken") from error
        except LockError as first:
            raise Unobservable("the host could not be looked at") from first
    except Unobservable as second:
        return second


@pytest.mark.parametrize(("number", "failure"), CLASSES.items(), ids=[errno.errorcode[number] for number in CLASSES])
def test_an_error_of_the_system_has_the_class_of_its_number(number: int, failure: Failure) -> None:
    assert failure_of(OSError(number, "said")) is failure
    assert failure_of(told_on(OSError(number, "said"))) is failure


def test_any_other_error_is_other() -> None:
    assert failure_of(ValueError("no")) is Failure.OTHER
    assert failure_of(OSError("without a number")) is Failure.OTHER
