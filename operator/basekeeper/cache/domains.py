"""Asking libvirt for its domains, without ever waiting for ever and without changing anything.

A hung libvirtd blocks its callers for ever, so every call runs in a worker thread with a deadline. A worker
that is stuck is left behind; no second one is started while it is, so threads do not pile up. No libvirt type
leaves this module: answers are `Domain` values, failures one sentence.

The connection is always read-only. openstack-helm and atmosphere leave the read-only socket to polkit, which
refuses a container's uid, while the other socket is open to all: so a refused default URI is tried again,
still read-only, through that one.
"""

import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .domain_xml import Domain, merge, parse

_OVERALL = 6
"""All calls together may take this many times what one may."""
_ROUNDS = 5
_DEFAULT_URI = "qemu:///system"
_SOCKETS = ("/run/libvirt/virtqemud-sock", "/run/libvirt/libvirt-sock")


@dataclass(frozen=True, slots=True)
class Answer:
    """What libvirt said."""

    domains: tuple[Domain, ...] = ()
    failure: str | None = None
    """One sentence when the list of domains is not complete."""


class _Refused(Exception):
    """libvirt could not be asked; the message says why."""


@dataclass(slots=True)
class _Job:
    """One question to libvirt: what the worker and the one who waits share."""

    uri: str
    beat: float = field(default_factory=time.monotonic)
    """When the call that is under way began."""
    abandoned: bool = False
    answered: threading.Event = field(default_factory=threading.Event)
    found: list[Domain] = field(default_factory=list)
    failure: str | None = None

    def next_call(self) -> None:
        """To be called before each libvirt call."""
        if self.abandoned:
            raise _Refused("nobody waits for the answer any more")
        self.beat = time.monotonic()


class _Desk:
    """Where callers wait, one at a time, and where a worker that is stuck is remembered."""

    turn = threading.Lock()
    worker: threading.Thread | None = None


def ask(uri: str | None, timeout: float) -> Answer:
    """All domains of the libvirt at `uri`, active and inactive; none when `uri` is None.

    `timeout` is in seconds, for each call. Never raises: what goes wrong is `Answer.failure`.
    """
    if uri is None:
        return Answer()
    with _Desk.turn:
        return _ask_in_worker(uri, timeout)


def _ask_in_worker(uri: str, timeout: float) -> Answer:
    if _Desk.worker is not None:
        _Desk.worker.join(timeout)
        if _Desk.worker.is_alive():
            return Answer(failure=_sentence(uri, "an earlier call to it still hangs"))
    job = _Job(uri)
    _Desk.worker = threading.Thread(target=_work, args=(job,), name="libvirt", daemon=True)
    overall = time.monotonic() + _OVERALL * timeout
    _Desk.worker.start()
    while True:
        due = min(job.beat + timeout, overall)
        # The worker moves the deadline with each call, so it is looked at again when it seems over.
        if job.answered.wait(max(0.0, due - time.monotonic())):
            return Answer(tuple(job.found), job.failure)
        if time.monotonic() >= min(job.beat + timeout, overall):
            job.abandoned = True
            # What was told so far is evidence of use all the same.
            return Answer(tuple(job.found), _sentence(uri, f"it did not answer within {timeout:g} seconds"))


def _sentence(uri: str, why: str) -> str:
    return f"libvirt at {uri} could not be asked which domains there are: {why}; removals are held until it answers"


def _work(job: _Job) -> None:
    connection: Any = None
    try:
        libvirt = _load()
        connection = _connect(libvirt, job)
        for domain in _domains(libvirt, connection, job):
            job.found.append(domain)
    except _Refused as refusal:
        job.failure = _sentence(job.uri, str(refusal))
    except Exception as error:  # noqa: BLE001 - whatever a foreign library raises must end as an answer
        job.failure = _sentence(job.uri, f"{type(error).__name__}: {error}")
    finally:
        job.answered.set()
        if connection is not None:
            _quietly(connection.close)


def _load() -> Any:
    try:
        libvirt: Any = importlib.import_module("libvirt")
    except ImportError as error:
        raise _Refused(
            "its Python binding is not installed; install the extra basekeeper[libvirt] or pass --libvirt none"
        ) from error
    # Without a handler of ours libvirt prints every error to the terminal.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt


def _connect(libvirt: Any, job: _Job) -> Any:
    refusal = ""
    for uri in _addresses(job.uri):
        job.next_call()
        try:
            return libvirt.openReadOnly(uri)
        except libvirt.libvirtError as error:
            refusal = refusal or str(error)
    raise _Refused(refusal)


def _addresses(uri: str) -> Iterator[str]:
    yield uri
    if uri == _DEFAULT_URI:
        for socket in _SOCKETS:
            if os.path.exists(socket):
                yield f"qemu+unix:///system?socket={socket}"


def _domains(libvirt: Any, connection: Any, job: _Job) -> Iterator[Domain]:
    """Every domain once; one that vanishes may be defined anew under its uuid, so the list is asked again."""
    told: set[str] = set()
    for _ in range(_ROUNDS):
        vanished = False
        job.next_call()
        try:
            listed = connection.listAllDomains(0)
        except libvirt.libvirtError as error:
            raise _Refused(str(error)) from error
        for handle in listed:
            uuid = handle.UUIDString()
            if uuid in told:
                continue
            domain = _describe(libvirt, handle, job)
            if domain is None:
                vanished = True
                continue
            told.add(uuid)
            yield domain
        if not vanished:
            return
    # Each may have come back under its uuid after it was asked, and only a list without such gaps would show it.
    raise _Refused(f"in each of {_ROUNDS} lists a domain was gone when it was asked")


def _describe(libvirt: Any, handle: Any, job: _Job) -> Domain | None:
    """One domain as it runs and as it is defined; None if it is gone."""

    def described(flags: int) -> Domain | None:
        job.next_call()
        try:
            return parse(handle.XMLDesc(flags))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise _Refused(str(error)) from error
        except ValueError as error:
            raise _Refused(str(error)) from error

    domain = described(0)
    if domain is None or not domain.running:
        return domain
    defined = described(libvirt.VIR_DOMAIN_XML_INACTIVE)
    return domain if defined is None else merge(domain, defined)


def _quietly(call: Callable[[], object]) -> None:
    try:
        call()
    except Exception:  # noqa: BLE001 - closing is a courtesy: what was asked has been answered
        return
