"""The grammar of `_base`: every name that nova ever wrote, and the look-alikes that it must leave alone."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from basekeeper.cache.names import FINAL_KINDS, Kind, Name, display, from_display, is_final, original_of, parse

HASH = b"0123456789abcdef0123456789abcdef01234567"
SHOUTED = HASH.upper()

NOVA_WROTE: dict[str, tuple[bytes, Kind]] = {
    "an original": (HASH, Kind.ORIGINAL),
    "an original of digits only": (b"0" * 40, Kind.ORIGINAL),
    "a copy resized to GB, Essex and Folsom": (HASH + b"_20", Kind.RESIZED),
    "a copy resized to one digit of GB, which nova never sees again": (HASH + b"_1", Kind.RESIZED),
    "a copy resized to bytes": (HASH + b"_10737418240", Kind.RESIZED),
    "a copy from before Essex": (HASH + b"_sm", Kind.RESIZED),
    "a swap disk's base": (b"swap_512", Kind.SWAP),
    "a swap disk of nothing": (b"swap_0", Kind.SWAP),
    "what nova makes of a lost swap base": (b"swap_512_512", Kind.SWAP),
    "an ephemeral disk's base": (b"ephemeral_20_0706d66", Kind.EPHEMERAL),
    "an ephemeral disk's base, ext4": (b"ephemeral_1_40d1d2c", Kind.EPHEMERAL),
    "an ephemeral base named after the default": (b"ephemeral_20_default", Kind.EPHEMERAL),
    "an ephemeral base named after an operating system": (b"ephemeral_20_linux", Kind.EPHEMERAL),
    "an ephemeral base of no operating system": (b"ephemeral_20_None", Kind.EPHEMERAL),
    "an ephemeral base with its number": (b"ephemeral_0_20_None", Kind.EPHEMERAL),
    "a download": (HASH + b".part", Kind.PARTIAL),
    "a conversion": (HASH + b".converted", Kind.PARTIAL),
    "a check sum, Essex": (HASH + b".sha1", Kind.PARTIAL),
    "a check sum, Folsom to Mitaka": (HASH + b".info", Kind.PARTIAL),
    "the download of a resized copy": (HASH + b"_20.part", Kind.PARTIAL),
    "the check sum of a resized copy": (HASH + b"_10737418240.info", Kind.PARTIAL),
    "what a killed rsync leaves": (b"." + HASH + b".Xy3z90", Kind.PARTIAL),
    "what a killed rsync leaves of a resized copy": (b"." + HASH + b"_20.aBcDeF", Kind.PARTIAL),
    "an NFS client's silly rename": (b".nfs000000000012ab3400000001", Kind.PARTIAL),
}

FOREIGN: dict[str, bytes] = {
    "nothing": b"",
    "a hash in capitals": SHOUTED,
    "39 digits": HASH[:39],
    "41 digits": HASH + b"0",
    "40 characters that are no hash": b"z" * 40,
    "a hash and a newline": HASH + b"\n",
    "a download and a newline": HASH + b".part\n",
    "a swap base and a newline": b"swap_512\n",
    "an ephemeral base and a newline": b"ephemeral_20_0706d66\n",
    "a newline before a hash": b"\n" + HASH,
    "a space after a hash": HASH + b" ",
    "a hash with a byte that is no text": HASH[:39] + b"\xff",
    "a hash with a Persian digit": HASH[:38] + "۴".encode(),
    "a resized copy in Persian digits": HASH + b"_" + "۴".encode(),
    "a resized copy of no size": HASH + b"_",
    "a resized copy of a negative size": HASH + b"_-1",
    "a resized copy of an endless size": HASH + b"_" + b"9" * 21,
    "an operator's copy": HASH + b"_backup",
    "an operator's other copy": HASH + b".bak",
    "a copy of a resized copy": HASH + b"_20_20",
    "a partial of a partial": HASH + b".part.part",
    "a partial without its file": b".part",
    "swap without a size": b"swap_",
    "swap that is a word": b"swap_keep",
    "swap of three sizes": b"swap_1_2_3",
    "swap in capitals": b"SWAP_512",
    "an ephemeral base without its hash": b"ephemeral_20",
    "an operator's ephemeral copy": b"ephemeral_20_backup",
    "an ephemeral name of no size": b"ephemeral_backup_keep",
    "an ephemeral base with a hash in capitals": b"ephemeral_20_0706D66",
    "an ephemeral base with a longer hash": b"ephemeral_20_0706d660",
    "rsync with five characters": b"." + HASH + b".aBcDe",
    "rsync with seven characters": b"." + HASH + b".aBcDeFg",
    "rsync of a partial": b"." + HASH + b".part.aBcDeF",
    "something hidden": b"." + HASH,
    "NFS without an id": b".nfs",
    "our own directory": b".basekeeper",
    "lost and found": b"lost+found",
    "a path": b"a/" + HASH,
}


@pytest.mark.parametrize(("raw", "kind"), NOVA_WROTE.values(), ids=NOVA_WROTE)
def test_every_name_that_nova_ever_wrote_is_known(raw: bytes, kind: Kind) -> None:
    assert parse(raw).kind is kind


@pytest.mark.parametrize("raw", FOREIGN.values(), ids=FOREIGN)
def test_a_name_that_nova_never_wrote_is_foreign(raw: bytes) -> None:
    assert parse(raw) == Name(raw, Kind.FOREIGN)


@pytest.mark.parametrize(("raw", "kind"), NOVA_WROTE.values(), ids=NOVA_WROTE)
def test_a_disk_can_be_built_on_final_names_only(raw: bytes, kind: Kind) -> None:
    assert is_final(raw) == parse(raw).is_final == (kind in FINAL_KINDS)


@given(raw=st.binary(max_size=80))
@example(raw=HASH + b"\n")
def test_only_what_reads_back_letter_by_letter_is_nova_s(raw: bytes) -> None:
    name = parse(raw)
    assert name.raw == raw
    if name.kind is not Kind.FOREIGN:
        assert raw.decode("ascii").isprintable()
        assert b"/" not in raw


LOCKS: dict[str, tuple[bytes, bytes]] = {
    "an original": (HASH, HASH),
    "a resized copy": (HASH + b"_20", HASH + b"_20"),
    "swap": (b"swap_512", b"swap_512"),
    "ephemeral": (b"ephemeral_20_0706d66", b"ephemeral_20_0706d66"),
    "a download, under the lock of what it becomes": (HASH + b".part", HASH),
    "a resized copy's download": (HASH + b"_20.part", HASH + b"_20"),
    "rsync's copy": (b"." + HASH + b"_20.aBcDeF", HASH + b"_20"),
}


@pytest.mark.parametrize(("raw", "lock"), LOCKS.values(), ids=LOCKS)
def test_the_lock_is_the_one_that_nova_takes_for_the_final_name(raw: bytes, lock: bytes) -> None:
    assert parse(raw).lock_name == lock


IMAGES: dict[str, tuple[bytes, bytes | None]] = {
    "an original": (HASH, HASH),
    "a resized copy": (HASH + b"_sm", HASH),
    "a download of a resized copy": (HASH + b"_20.part", HASH),
    "rsync's copy": (b"." + HASH + b".aBcDeF", HASH),
    "swap": (b"swap_512", None),
    "NFS's copy of who knows what": (b".nfs000000000012ab3400000001", None),
}


@pytest.mark.parametrize(("raw", "image"), IMAGES.values(), ids=IMAGES)
def test_originals_copies_and_partials_know_their_image(raw: bytes, image: bytes | None) -> None:
    assert parse(raw).image == image


def test_a_silly_rename_says_that_an_nfs_client_holds_it() -> None:
    assert parse(b".nfs000000000012ab3400000001").held_by_nfs


def test_an_image_s_base_is_named_as_nova_names_it() -> None:
    assert original_of("") == b"da39a3ee5e6b4b0d3255bfef95601890afd80709"
    assert original_of("155d900f-4e14-4e4c-a73d-069cbf4541e6") == b"f2d1a8250ed3d4b744a8250dab8f6840179d502a"


SHOWN: dict[str, tuple[bytes, str]] = {
    "a name": (HASH, HASH.decode()),
    "a space": (b"a b", "a b"),
    "letters that are no ASCII": ("größe".encode(), "größe"),
    "no UTF-8": (b"a\xff", r"a\xff"),
    "a newline": (b"a\n", r"a\x0a"),
    "NUL": (b"\0", r"\x00"),
    "an escape sequence for terminals": (b"\x1b[31m", r"\x1b[31m"),
    "a backslash": (b"a\\xff", r"a\x5cxff"),
    "a right-to-left mark": ("\u202e".encode(), r"\xe2\x80\xae"),
    "a line separator": ("\u2028".encode(), r"\xe2\x80\xa8"),
}


@pytest.mark.parametrize(("raw", "text"), SHOWN.values(), ids=SHOWN)
def test_a_name_is_shown_so_that_no_terminal_and_no_reader_is_fooled(raw: bytes, text: str) -> None:
    assert display(raw) == str(parse(raw)) == text


@given(raw=st.binary())
@example(raw=b"\\x5c\\")
@example(raw="\ud800".encode("utf-8", "surrogatepass"))
def test_what_is_shown_reads_back_to_the_same_bytes(raw: bytes) -> None:
    shown = display(raw)
    assert shown.isprintable()
    assert from_display(shown) == raw


@given(raw=st.lists(st.binary(max_size=6), min_size=2, max_size=2, unique=True))
def test_different_names_are_shown_differently(raw: list[bytes]) -> None:
    assert display(raw[0]) != display(raw[1])
