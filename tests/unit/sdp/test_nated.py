"""Descriptions repaired for senders behind NAT: each flag alone, sums, and what must stay octet for octet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sbc.sdp.nated import SdpFix, fix_body, fix_flags, fix_nated_sdp, uses_ice
from tests.support.shared import shared_data

SEEN = "203.0.113.9"
PHONE = (
    b"v=0\r\no=- 7 7 IN IP4 192.168.1.5\r\ns=-\r\nc=IN IP4 192.168.1.5\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 0\r\na=sendrecv\r\nm=video 4002 RTP/AVP 96\r\nc=IN IP4 192.168.1.6\r\na=recvonly\r\n"
)


def fixed(flags: int, sdp: bytes = PHONE, **options: bool) -> list[str]:
    return fix_nated_sdp(sdp, flags, SEEN, **options).decode().splitlines()  # type: ignore[arg-type]  # keep_old


def changes(flags: int, sdp: bytes = PHONE, **options: bool) -> tuple[list[str], list[str]]:
    """Lines that have gone, lines that have come."""
    before, after = sdp.decode().splitlines(), fixed(flags, sdp, **options)
    return [line for line in before if line not in after], [line for line in after if line not in before]


@pytest.mark.parametrize(
    ("flags", "gone", "come"),
    [
        (0, [], []),
        (1, [], ["a=direction:active"]),
        (
            2,
            ["c=IN IP4 192.168.1.5", "c=IN IP4 192.168.1.6"],
            [f"c=IN IP4 {SEEN}", "a=oldcip:192.168.1.5", f"c=IN IP4 {SEEN}", "a=oldcip:192.168.1.6"],
        ),
        (4, [], ["a=nortpproxy:yes"]),
        (8, ["o=- 7 7 IN IP4 192.168.1.5"], [f"o=- 7 7 IN IP4 {SEEN}", "a=oldoip:192.168.1.5"]),
        (16, [], []),
    ],
)
def test_each_flag_alone(flags: int, gone: list[str], come: list[str]) -> None:
    assert changes(flags) == (gone, come)


def test_eleven_is_one_and_two_and_eight() -> None:
    assert fix_flags(["11"]) == fix_flags([11]) == fix_flags(["active", "media-ip", "origin-ip"]) == 1 + 2 + 8
    assert fixed(11) == [
        "v=0",
        f"o=- 7 7 IN IP4 {SEEN}",
        "s=-",
        f"c=IN IP4 {SEEN}",
        "t=0 0",
        "a=oldoip:192.168.1.5",
        "a=oldcip:192.168.1.5",
        "a=direction:active",
        "m=audio 4000 RTP/AVP 0",
        "a=sendrecv",
        "m=video 4002 RTP/AVP 96",
        f"c=IN IP4 {SEEN}",
        "a=recvonly",
        "a=oldcip:192.168.1.6",
    ]


def test_old_addresses_are_skipped_when_that_is_wanted() -> None:
    assert not [line for line in fixed(10, keep_old=False) if "old" in line]


@pytest.mark.parametrize("null", ["IP4 0.0.0.0", "IP6 ::"])
def test_a_hold_stays_a_hold_without_16(null: str) -> None:
    hold = PHONE.replace(b"c=IN IP4 192.168.1.6", f"c=IN {null}".encode())
    assert f"c=IN {null}" in fixed(2, hold)
    assert f"c=IN {null}" not in fixed(18, hold)
    assert f"a=oldcip:{null[4:]}" in fixed(18, hold)
    assert fixed(16, hold) == hold.decode().splitlines()


def test_the_address_may_be_of_the_other_version() -> None:
    assert b"\r\nc=IN IP6 2001:db8::1\r\n" in fix_nated_sdp(PHONE, 2, "2001:db8::1")


@pytest.mark.parametrize("line", [b"c=IN IP4 224.2.1.1/127/3", b"c=IN IP4", b"c=nonsense", b"c="])
def test_what_is_no_address_of_one_host_stays(line: bytes) -> None:
    odd = PHONE.replace(b"c=IN IP4 192.168.1.6", line)
    assert line in fix_nated_sdp(odd, 2, SEEN).split(b"\r\n")


def test_a_host_name_is_replaced() -> None:
    assert "a=oldcip:phone.local" in fixed(2, PHONE.replace(b"192.168.1.6", b"phone.local"))


@pytest.mark.parametrize("line", [b"a=candidate:1 1 UDP 2130706431 192.168.1.5 4000 typ host", b"a=ice-ufrag:abcd"])
def test_ice_says_itself_where_its_sender_is(line: bytes) -> None:
    browser = PHONE + line + b"\r\n"
    assert uses_ice(browser)
    assert fix_nated_sdp(browser, 31, SEEN, extra=["a=x"]) == browser


def test_extra_lines_come_at_the_end_and_once() -> None:
    once = fix_nated_sdp(PHONE, 2, SEEN, extra=["a=setup:active", "a=x:é"])
    assert once.endswith("\r\na=setup:active\r\na=x:é\r\n".encode())
    assert fix_nated_sdp(once, 2, SEEN, extra=["a=setup:active", "a=x:é"]) == once


@pytest.mark.parametrize("line", ["a=x\r\nm=audio 1 RTP/AVP 0", "a", "", "nonsense"])
def test_an_extra_line_that_is_none(line: str) -> None:
    with pytest.raises(ValueError, match="no line of a description"):
        fix_nated_sdp(PHONE, 2, SEEN, extra=[line])


@pytest.mark.parametrize("address", ["", "phone.example", "1.2.3", "1.2.3.4\r\n"])
def test_an_address_that_is_none(address: str) -> None:
    with pytest.raises(ValueError, match="no IP address"):
        fix_nated_sdp(PHONE, 2, address)


@pytest.mark.parametrize("flag", ["32", -1, 32, "fix-it", ""])
def test_a_flag_that_is_none(flag: str | int) -> None:
    with pytest.raises(ValueError, match="of a description"):
        fix_flags([flag])


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_are_those_of_the_sender(ending: bytes, last: bool) -> None:
    sdp = PHONE.replace(b"\r\n", ending)
    if not last:
        sdp = sdp.removesuffix(ending)
    done = fix_nated_sdp(sdp, 11, SEEN)
    assert done.replace(ending, b"").count(b"\n") == done.replace(ending, b"").count(b"\r") == 0
    assert done.endswith(b"a=oldcip:192.168.1.6" + ending)


PARTS = (
    b"preamble\r\n--bo\r\nContent-Type: application/pidf+xml\r\n\r\n<a>c=IN IP4 192.168.1.5</a>\r\n--bo\r\n"
    b"Content-Type: application/sdp;x=y\r\nContent-ID: 7\r\n\r\n%b\r\n--bo\r\n\r\nc=IN IP4 192.168.1.5\r\n--bo--\r\nend"
)


def test_of_several_parts_only_the_description_changes() -> None:
    done = fix_body("multipart/mixed;boundary=bo", PARTS % PHONE, 11, SEEN)
    assert done == PARTS % fix_nated_sdp(PHONE, 11, SEEN)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("text/plain", PHONE),
        ("multipart/mixed", PARTS % PHONE),
        ("multipart/mixed;boundary=other", PARTS % PHONE),
        ("multipart/mixed;boundary=bo", PARTS.replace(b"application/sdp", b"text/x") % PHONE),
        ("application/sdp", b""),
    ],
)
def test_a_body_without_a_description_stays(kind: str, body: bytes) -> None:
    assert fix_body(kind, body, 31, SEEN) == body


_HOST = st.sampled_from(["192.168.1.5", "10.0.0.7", "203.0.113.9", "0.0.0.0", "fd00::1", "::", "phone.example"])
_LINE = st.one_of(
    st.builds(lambda host: f"c=IN {'IP6' if ':' in host else 'IP4'} {host}".encode(), _HOST),
    st.builds(lambda host: f"o=- 1 1 IN {'IP6' if ':' in host else 'IP4'} {host}".encode(), _HOST),
    st.sampled_from([b"v=0", b"s=-", b"t=0 0", b"m=audio 4000 RTP/AVP 0", b"m=video 0 RTP/AVP 96", b"a=sendrecv"]),
    st.binary(max_size=12).filter(lambda octets: b"\n" not in octets and octets[:2] not in (b"c=", b"o=", b"a=")),
)


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    st.lists(_LINE, min_size=1, max_size=12),
    st.sampled_from([b"\r\n", b"\n"]),
    st.integers(0, 31),
    st.booleans(),
    st.sampled_from(["203.0.113.9", "2001:db8::1"]),
)
def test_whatever_comes(lines: list[bytes], ending: bytes, flags: int, keep_old: bool, address: str) -> None:
    """Other lines stay, in their order; twice is once; no address is left that was to go; the old ones are told."""
    sdp = b"".join(line + ending for line in lines)
    done = fix_nated_sdp(sdp, flags, address, keep_old=keep_old)
    assert fix_nated_sdp(done, flags, address, keep_old=keep_old) == done
    if uses_ice(sdp):
        assert done == sdp
        return
    touched = tuple(kind for flag, kind in ((SdpFix.CONNECTION, b"c="), (SdpFix.ORIGIN, b"o=")) if flags & flag)
    stay = [line for line in sdp.split(b"\n") if not line.startswith(touched)]
    left = iter(done.split(b"\n"))
    assert all(line in left for line in stay)
    for line in done.split(b"\n"):
        if line.startswith(touched):
            host = line.split()[-1].decode()
            assert host == address or (host in ("0.0.0.0", "::") and not flags & SdpFix.NULL)
    assert (b"a=oldcip:" in done or b"a=oldoip:" in done) <= (keep_old and done != sdp)


@hypothesis_settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 31))
def test_octets_of_any_kind(sdp: bytes, flags: int) -> None:
    done = fix_nated_sdp(sdp, flags, SEEN)
    assert fix_nated_sdp(done, flags, SEEN) == done


def test_descriptions_of_real_devices() -> None:
    for path in sorted(shared_data("sdp", "real").iterdir()):
        sdp = path.read_bytes()
        done = fix_nated_sdp(sdp, 10, SEEN)
        if not uses_ice(sdp):
            assert all(line.split()[-1].decode() == SEEN for line in done.splitlines() if line[:2] == b"o="), path.name
        assert done.count(b"\nm=") == sdp.count(b"\nm="), path.name
