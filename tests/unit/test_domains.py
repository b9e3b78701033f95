"""Asking libvirt: a scripted binding that answers, refuses, forgets and hangs."""

import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from basekeeper.cache import domains
from basekeeper.cache.domains import ask

NO_DOMAIN = 42
URI = "qemu:///system"


class LibvirtError(Exception):
    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self._code = code

    def get_error_code(self) -> int:
        return self._code


class Handle:
    def __init__(self, uuid: str, *, running: bool = False, gone: int = 0) -> None:
        self.uuid = uuid
        self.running = running
        self.gone = gone

    def UUIDString(self) -> str:  # noqa: N802
        return self.uuid

    def XMLDesc(self, flags: int) -> str:  # noqa: N802
        if self.gone:
            self.gone -= 1
            raise LibvirtError("no domain with matching uuid", NO_DOMAIN)
        live = self.running and not flags
        source = "live" if live else "defined"
        return (
            f"<domain {'id=' + repr('1') if live else ''}><uuid>{self.uuid}</uuid><devices>"
            f"<disk type='file'><source file='/{source}'/></disk></devices></domain>"
        )


class Libvirt:
    """Stands for the module `libvirt`."""

    VIR_ERR_NO_DOMAIN = NO_DOMAIN
    VIR_DOMAIN_XML_INACTIVE = 2
    libvirtError = LibvirtError  # noqa: N815

    def __init__(self) -> None:
        self.handles: list[Handle] = []
        self.opened: list[str] = []
        self.closed = 0
        self.refused: set[str] = set()
        self.before_listing: Callable[[], object] = lambda: None

    def registerErrorHandler(self, *_: Any) -> None:  # noqa: N802
        pass

    def openReadOnly(self, uri: str) -> Any:  # noqa: N802
        self.opened.append(uri)
        if uri in self.refused:
            raise LibvirtError("authentication unavailable")
        return SimpleNamespace(listAllDomains=self._list, close=self._close)

    def _list(self, _flags: int) -> list[Handle]:
        self.before_listing()
        return self.handles

    def _close(self) -> None:
        self.closed += 1


@pytest.fixture
def libvirt(monkeypatch: pytest.MonkeyPatch) -> Libvirt:
    fake = Libvirt()
    monkeypatch.setitem(sys.modules, "libvirt", fake)
    monkeypatch.setattr(domains, "_SOCKETS", ())
    return fake


def test_nobody_to_ask(libvirt: Libvirt) -> None:
    answer = ask(None, 1)
    assert (answer.domains, answer.failure, libvirt.opened) == ((), None, [])


def test_active_and_inactive(libvirt: Libvirt) -> None:
    libvirt.handles = [Handle("a", running=True), Handle("b")]
    answer = ask(URI, 1)
    assert answer.failure is None
    assert [(one.uuid, [disk.path for disk in one.disks]) for one in answer.domains] == [
        ("a", [b"/live", b"/defined"]),
        ("b", [b"/defined"]),
    ]
    assert libvirt.closed == 1


def test_one_that_is_gone_is_looked_for_again(libvirt: Libvirt) -> None:
    libvirt.handles = [Handle("redefined", gone=1), Handle("redefined twice", gone=2), Handle("here")]
    answer = ask(URI, 1)
    assert sorted(one.uuid for one in answer.domains) == ["here", "redefined", "redefined twice"]
    assert answer.failure is None


def test_domains_that_are_gone_whenever_they_are_asked_leave_the_answer_incomplete(libvirt: Libvirt) -> None:
    def replace_one() -> None:
        # Each time one has gone after the list was made, and what took its place is not in the list.
        libvirt.handles = [Handle("here"), Handle(f"gone {time.monotonic()}", gone=1)]

    libvirt.before_listing = replace_one
    answer = ask(URI, 1)
    assert [one.uuid for one in answer.domains] == ["here"]
    assert "was gone when it was asked" in (answer.failure or "")


def test_the_other_sockets_are_tried_for_the_default_address_only(
    libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    present, absent = tmp_path / "libvirt-sock", tmp_path / "virtqemud-sock"
    present.touch()
    monkeypatch.setattr(domains, "_SOCKETS", (str(absent), str(present)))
    libvirt.refused = {URI, "qemu:///session"}
    assert ask(URI, 1).failure is None
    assert libvirt.opened == [URI, f"qemu+unix:///system?socket={present}"]
    failure = ask("qemu:///session", 1).failure
    assert failure is not None
    assert "authentication unavailable" in failure
    assert "removals are held until it answers" in failure


def test_without_the_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    failure = ask(URI, 1).failure
    assert failure is not None
    assert "install the extra basekeeper[libvirt] or pass --libvirt none" in failure


def test_whatever_it_raises_is_an_answer(libvirt: Libvirt) -> None:
    def fail() -> None:
        raise RuntimeError("boom")

    libvirt.before_listing = fail
    failure = ask(URI, 1).failure
    assert failure is not None
    assert "RuntimeError: boom" in failure


def test_a_hung_libvirt_is_left_behind_and_not_asked_again_until_it_wakes(libvirt: Libvirt) -> None:
    wake = threading.Event()
    libvirt.before_listing = lambda: wake.wait(30)
    started = time.monotonic()
    first, second = ask(URI, 0.1), ask(URI, 0.1)
    assert time.monotonic() - started < 5
    assert first.failure is not None
    assert "did not answer within 0.1 seconds" in first.failure
    assert second.failure is not None
    assert "an earlier call to it still hangs" in second.failure
    assert len(libvirt.opened) == 1
    wake.set()
    libvirt.handles = [Handle("a")]
    assert [one.uuid for one in ask(URI, 5).domains] == ["a"]


def test_what_was_told_before_it_hung_is_kept(libvirt: Libvirt, monkeypatch: pytest.MonkeyPatch) -> None:
    wake = threading.Event()
    hanging = Handle("b")
    monkeypatch.setattr(hanging, "XMLDesc", lambda _flags: wake.wait(30))
    libvirt.handles = [Handle("a"), hanging]
    answer = ask(URI, 0.1)
    wake.set()
    assert [one.uuid for one in answer.domains] == ["a"]
    assert answer.failure is not None


def test_calls_that_are_slow_but_within_their_time_are_waited_for(libvirt: Libvirt) -> None:
    libvirt.handles = [Handle("a")]
    libvirt.before_listing = lambda: time.sleep(0.15)
    assert ask(URI, 0.3).failure is None
