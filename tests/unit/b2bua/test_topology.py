"""Nothing that names one side reaches the other: every octet of a call is scanned for every token of the other side."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.ladder import A_HOST, B_HOST, MEDIA_A, MEDIA_B, OUR_A, OUR_B, Ladder, Phone, sdp

LEAKY = [
    ("Via", "SIP/2.0/UDP {host}:5099;branch=z9hG4bKfurther-{name}"),
    ("Record-Route", "<sip:{host}:5070;lr;from={name}-proxy>"),
    ("P-Asserted-Identity", "<sip:{name}-identity@{host}>"),
    ("Remote-Party-ID", "<sip:{name}-identity@{host}>"),
    ("Warning", '399 {host} "from {name}-warning"'),
    ("Reason", 'SIP;cause=200;text="{name}-reason at {host}"'),
    ("Call-Info", "<http://{host}/{name}-info>"),
    ("Organization", "{name}-organization"),
    ("X-Internal", "{host} {name}-internal"),
    ("History-Info", "<sip:{name}-history@{host}>"),
    ("Diversion", "<sip:{name}-diversion@{host}>"),
    ("Session-ID", "{name}-session-id"),
    ("User-Agent", "{name}-product/1.0 ({host})"),
    ("Server", "{name}-product/1.0 ({host})"),
    ("Supported", "timer, 100rel, {name}-extension"),
]


def leaks(phone: Phone) -> list[tuple[str, str]]:
    return [(header, value.format(host=phone.host, name=phone.name)) for header, value in LEAKY]


def description(host: str, name: str) -> bytes:
    return (
        sdp(host)
        .replace(b"o=phone 77", f"o={name}-user 77{ord(name)}".encode())
        .replace(b"s=talk", f"s={name}-session\r\ni={name}-information\r\ne={name}@{host}".encode())
    )


def whole_call(f: Ladder) -> None:
    """INVITE, 180, 183, 200, ACK, INFO both ways, re-INVITE both ways, BYE: everything with leaky headers."""
    a, b = f.a, f.b
    a.request("INVITE", body=description(A_HOST, "a"), extra=leaks(a))
    a.expect(100)
    b.expect("INVITE")
    b.reply(180, extra=leaks(b))
    a.expect(180)
    b.reply(183, body=description(B_HOST, "b"), extra=leaks(b))
    a.expect(183)
    b.reply(200, body=description(B_HOST, "b"), extra=leaks(b))
    a.expect(200)
    a.ack()
    b.expect("ACK")
    for sender, receiver in ((a, b), (b, a)):
        sender.request("INFO", body=b"Signal=1\r\n", content_type="application/dtmf-relay", extra=leaks(sender))
        receiver.reply(200, to=receiver.expect("INFO"), extra=leaks(receiver))
        sender.expect(200)
        sender.request("INVITE", body=description(sender.host, sender.name) + b"a=sendonly\r\n", extra=leaks(sender))
        sender.expect(100)
        invite = receiver.expect("INVITE")
        receiver.reply(488, to=invite, extra=leaks(receiver))
        receiver.expect("ACK")
        sender.refused(488)
    a.request("BYE", extra=leaks(a))
    a.expect(200)
    b.reply(200, to=b.expect("BYE"), extra=leaks(b))


def tokens_of(sender: Phone, ours: str, media: str) -> set[str]:
    """Whatever this side said or was told that belongs to this side alone."""
    found = {sender.host, ours, media, sender.tag, f"{sender.name}-", f"Phone-{sender.name}"}
    assert sender.dialog is not None
    found.add(sender.dialog[0])  # its Call-ID
    for data in sender.all:
        text = data.decode()
        found.update(re.findall(r";tag=([\w-]+)", text))
        found.update(re.findall(r"branch=(z9hG4bK[\w-]+)", text))
        found.update(re.findall(r"^Call-ID: (\S+)", text, re.M))
    return found


@pytest.mark.parametrize("engage", [True])
def test_no_token_of_one_side_reaches_the_other(engage: bool) -> None:
    f = Ladder(engage=engage)
    whole_call(f)
    for sender, receiver, ours, media in ((f.a, f.b, OUR_A, MEDIA_A), (f.b, f.a, OUR_B, MEDIA_B)):
        wire = b"\n".join(receiver.all).decode()
        tokens = tokens_of(sender, ours, media)
        assert len(tokens) > 12
        assert [token for token in tokens if token in wire] == []
    f.over()


def test_the_private_address_of_a_listener_stays_private() -> None:
    """What we bind is not what we advertise."""
    f = Ladder()
    whole_call(f)
    assert b"10.0.0.5" not in b"".join(f.a.all + f.b.all)


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    name=st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-", min_size=3, max_size=20),
    filler=st.text('abcdefghijklmnopqrstuvwxyz0123456789 ;=,<>@"', max_size=40),
)
def test_unknown_headers_never_cross(name: str, filler: str) -> None:
    """An allow-list, not a deny-list: whatever a header is called, its value stays on its side."""
    marker = f"zz{A_HOST}zz"
    f = Ladder()
    known = {
        *("via", "v", "from", "f", "to", "t", "call-id", "i", "cseq", "contact", "m", "content-length", "l"),
        *("content-type", "c", "max-forwards", "subject", "s", "priority", "require", "content-encoding", "e"),
        *("accept", "content-disposition", "content-language", "date", "expires"),
    }
    if name.lower() in known:
        return
    f.a.request("INVITE", body=sdp(A_HOST), extra=[(name, marker + filler.strip())])
    assert marker not in b"".join(f.b.all).decode()


def test_identity_crosses_between_trusted_realms_only() -> None:
    from dataclasses import replace

    for trusted in (True, False):
        f = Ladder()
        realms = dict(f.core.settings.realms)
        realms["outside"] = replace(realms["outside"], trusted=trusted)
        f.core.reconfigure(replace(f.core.settings, realms=realms))
        identity = [("P-Asserted-Identity", f'"Alice" <sip:+4930@{A_HOST}>, <tel:+4930>'), ("Privacy", "id")]
        f.a.request("INVITE", body=sdp(A_HOST), extra=identity)
        invite = f.b.expect("INVITE")
        expected = [f"Alice <sip:+4930@{OUR_B}>", "<tel:+4930>"] if trusted else []
        assert invite.get_all("P-Asserted-Identity") == expected
        assert invite.get("Privacy") == ("id" if trusted else None)


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        (f"sip:alice@{A_HOST}:5070;transport=udp", f"sip:alice@{OUR_B}"),
        (f"sip:+4930@{A_HOST};user=phone", f"sip:+4930@{OUR_B};user=phone"),
        ("tel:+4930;phone-context=x", f"sip:+4930@{OUR_B};user=phone"),
        ("sip:anonymous@anonymous.invalid", "sip:anonymous@anonymous.invalid"),
        (f"sip:{A_HOST}", f"sip:{OUR_B}"),
    ],
)
def test_from_is_ours_by_construction(uri: str, seen: str) -> None:
    f = Ladder()
    f.a.dialog = ("id-1", f'"Alice A" <{uri}>;tag=t', "<sip:+4930123@192.0.2.1>", "sip:+4930123@192.0.2.1")
    f.a.request("INVITE", body=sdp(A_HOST))
    sender = f.b.expect("INVITE").from_()
    assert (sender.display, str(sender.uri)) == ("Alice A", seen)
    assert f.b.invite is not None
    assert str(f.b.invite.to().uri) == f"sip:+4930123@{B_HOST}"
