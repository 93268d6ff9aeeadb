"""A browser as caller and as callee through the core: what the media plane is asked, and what each side is told."""

from __future__ import annotations

from typing import Any

from media.protocol import Answer, Ice, Join, Offer, Reply, Seat
from sbc.b2bua.effects import MediaCommand
from sbc.b2bua.settings import MediaProfile, MediaProfiles, SrtpPolicies
from sbc.sdp.codecs import CodecFilter
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, B_HOST, C_HOST, Ladder, sdp
from tests.support.transfers import TERMINATE, blind, dial

BROWSER = MediaProfile(srtp="dtls", ice="lite")
NARROW = MediaProfile(codecs=CodecFilter(allow=frozenset({"pcmu", "pcma"})))
OURS = "sha-256 " + ":".join(["0F"] * 32)
THEIRS = "sha-256 " + ":".join(["AB"] * 32)
PASSWORD = "their-password-of-24-char"


def browser(*, ufrag: str = "abcd", setup: str = "actpass", direction: str = "sendrecv", version: int = 1) -> bytes:
    """As Chromium writes it before it has a candidate."""
    return (
        f"v=0\r\no=- 4611 {version} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=msid-semantic: WMS\r\n"
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n"
        f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{PASSWORD}\r\na=ice-options:trickle\r\na=fingerprint:{THEIRS}\r\n"
        f"a=setup:{setup}\r\na=mid:0\r\na=extmap:1 urn:x\r\na={direction}\r\na=rtcp-mux\r\n"
        "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\na=rtpmap:0 PCMU/8000\r\n"
    ).encode()


class BrowserLadder(Ladder):
    """A media worker that gives ICE credentials to the legs that take them."""

    def __init__(self, a: MediaProfile | None, b: MediaProfile | None, **changes: Any) -> None:  # Any: of CoreSettings
        named, peers = ({"default": a} if a else {}), ({"carrier-b": b} if b else {})
        super().__init__(media_profiles=MediaProfiles(named, peers), **changes)
        self.modes: dict[str, str] = {}

    def answer_media(self, command: MediaCommand) -> Reply:
        reply, request = super().answer_media(command), command.request
        if isinstance(request, Offer):
            self.modes |= {request.from_leg: request.from_ice, request.to_leg: request.to_ice}
        if isinstance(request, Offer | Answer) and self.modes[request.to_leg] == "lite":
            for endpoint in reply.endpoints:
                endpoint.ice, endpoint.fingerprint = Ice("ours", "p" * 24), OURS
                endpoint.setup = "actpass" if isinstance(request, Offer) else "passive"
        return reply


def lines(msg: Message) -> list[str]:
    return msg.body.decode().split("\r\n")


def test_a_browser_calls_a_carrier() -> None:
    f = BrowserLadder(BROWSER, NARROW)
    f.a.request("INVITE", body=browser())
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    f.b.reply(200, body=sdp(B_HOST))
    ok = f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    offered, answered = f.media
    assert isinstance(offered, Offer)
    assert isinstance(answered, Answer)
    assert (offered.from_srtp, offered.from_ice, offered.to_srtp, offered.to_ice) == ("dtls", "lite", "off", "off")
    assert offered.streams[0].ice == Ice("abcd", PASSWORD)
    assert (offered.streams[0].fingerprints, offered.streams[0].setup) == ([THEIRS], "actpass")
    assert answered.streams[0].ice is None
    assert [line for line in lines(invite) if line[:2] in ("m=", "a=")] == [
        *(f"m=audio {offered_port(invite)} RTP/AVP 0", "a=sendrecv", "a=rtpmap:0 PCMU/8000"),
    ]
    told = lines(ok)
    assert f"m=audio {offered_port(ok)} UDP/TLS/RTP/SAVPF 0" in told
    for line in ("a=group:BUNDLE 0", "a=ice-lite", "a=mid:0", "a=rtcp-mux", "a=setup:passive", "a=ice-ufrag:ours"):
        assert told.count(line) == 1
    assert not [note for note in f.notes if PASSWORD in str(note)]


def offered_port(msg: Message) -> str:
    return next(line for line in lines(msg) if line.startswith("m=")).split()[1]


def test_a_carrier_calls_a_browser_that_holds_and_restarts_ice() -> None:
    f = BrowserLadder(None, BROWSER)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    for line in ("a=group:BUNDLE 0", "a=mid:0", "a=setup:actpass", "a=rtcp-mux", "a=end-of-candidates"):
        assert line in lines(invite)
    f.b.reply(200, body=browser(setup="active"))
    ok = f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    assert f"m=audio {offered_port(ok)} RTP/AVP 111 0" in lines(ok)
    assert not [line for line in lines(ok) if "ice" in line or "mid" in line or "extmap" in line or "rtcp-fb" in line]
    f.b.request("INVITE", body=browser(ufrag="efgh", direction="sendonly", version=2))
    f.b.expect(100)
    again = f.a.expect("INVITE")
    assert "a=sendonly" in lines(again)
    held = f.media[-1]
    assert isinstance(held, Offer)
    assert (held.from_ice, held.to_ice) == ("lite", "off")
    assert held.streams[0].ice == Ice("efgh", PASSWORD)
    f.a.reply(200, body=sdp(A_HOST, direction="recvonly", version=2))
    told = lines(f.b.expect(200))
    assert "a=setup:passive" in told
    assert "a=mid:0" in told


def test_what_no_browser_says_is_refused_before_anyone_is_called() -> None:
    f = BrowserLadder(BROWSER, None)
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.a.refused(488)
    f.b.nothing()
    assert not f.media


def test_dtls_by_the_policy_of_a_realm() -> None:
    """Without ICE: as a phone speaks it (RFC 5763)."""
    f = BrowserLadder(None, None, srtp=SrtpPolicies({"inside": "dtls", "outside": "off"}, {}))
    f.a.request("INVITE", body=browser().replace(b"IP4 0.0.0.0", f"IP4 {A_HOST}".encode()))
    f.a.expect(100)
    f.b.expect("INVITE")
    (offered,) = f.media
    assert isinstance(offered, Offer)
    assert (offered.from_srtp, offered.from_ice) == ("dtls", "off")
    assert (offered.streams[0].address, offered.streams[0].ice) == (A_HOST, None)


def test_a_browser_calls_a_browser() -> None:
    """Each has a transport of its own with us; what they negotiate beyond that is between them."""
    f = BrowserLadder(BROWSER, BROWSER)
    f.a.request("INVITE", body=browser())
    f.a.expect(100)
    invite = f.b.expect("INVITE")
    f.b.reply(200, body=browser(ufrag="wxyz", setup="active"))
    ok = f.a.expect(200)
    f.a.ack()
    f.b.expect("ACK")
    for msg, setup in ((invite, "actpass"), (ok, "passive")):
        told = lines(msg)
        for line in ("a=ice-ufrag:ours", f"a=fingerprint:{OURS}", f"a=setup:{setup}", "a=mid:0", "a=group:BUNDLE 0"):
            assert told.count(line) == 1, line
        assert "a=extmap:1 urn:x" in told
        assert "a=rtcp-fb:111 transport-cc" in told
        assert not [line for line in told if "abcd" in line or "wxyz" in line or THEIRS in line or "trickle" in line]
    offered, answered = f.media
    assert isinstance(offered, Offer)
    assert isinstance(answered, Answer)
    assert (offered.from_ice, offered.to_ice, offered.to_srtp) == ("lite", "lite", "dtls")
    assert (answered.streams[0].setup, answered.streams[0].ice) == ("active", Ice("wxyz", PASSWORD))


def test_a_carrier_holds_a_browser_in_the_manner_of_rfc_2543() -> None:
    """And the browser keeps its names and its transport."""
    f = BrowserLadder(BROWSER, NARROW)
    f.set_up(offer=browser().replace(b"BUNDLE 0", b"BUNDLE audio").replace(b"mid:0", b"mid:audio"), rings=False)
    f.b.request("INVITE", body=sdp("0.0.0.0", version=2))
    f.b.expect(100)
    told = lines(f.a.expect("INVITE"))
    for line in ("a=sendonly", "a=mid:audio", "a=group:BUNDLE audio", "a=setup:actpass", "a=ice-ufrag:ours"):
        assert told.count(line) == 1, line
    assert "c=IN IP4 0.0.0.0" not in told


def test_a_browser_that_is_transferred_joins_the_other_call_with_its_transport() -> None:
    """The media worker is told whose seat it describes, and when the leg takes it; before the former call ends."""
    f = BrowserLadder(BROWSER, None, route=dial, transfers=TERMINATE)
    f.set_up(offer=browser(), rings=False)
    first = f.call.key
    f.media.clear()
    blind(f, f.b, f.a)
    f.c.reply(200, body=sdp(C_HOST))
    again = f.a.expect("INVITE")
    (offered,) = f.media
    assert isinstance(offered, Offer)
    assert (offered.to_leg, offered.to_ice, offered.seat) == ("a", "lite", Seat("a", (first, "a")))
    assert "a=setup:actpass" in lines(again)
    f.a.reply(200, to=again, body=browser(setup="active", version=2))
    kinds = [(type(request).__name__, request.session == first) for request in f.media]
    assert kinds == [("Offer", False), ("Answer", False), ("Join", False), ("Delete", True)]
    assert f.media[2] == Join(offered.session, Seat("a", (first, "a")))


def test_what_is_no_dtls_takes_a_transport_of_the_other_call() -> None:
    f = BrowserLadder(None, None, route=dial, transfers=TERMINATE)
    f.set_up()
    blind(f, f.b, f.a)
    f.c.reply(200, body=sdp(C_HOST))
    f.a.reply(200, to=f.a.expect("INVITE"), body=sdp(A_HOST, version=2))
    assert not [request for request in f.media if isinstance(request, Join)]
    assert [request.seat for request in f.media if isinstance(request, Offer)] == [None, None]
