"""Bodies and session descriptions as routes change them: seen at once, by later routes, and on the wire."""

from __future__ import annotations

import pytest

from sbc.routing import Branch, Failure, Reply, Request, RouteError, Routes
from sbc.routing.body import Parts
from sbc.routing.sdp import Sdp, Stream, sdp_of
from tests.support.ladder import A_HOST, B_HOST, sdp
from tests.unit.routing.stage import BOTH, OFFER, Stage

TEXT = (
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n"
    b"m=audio 4000 RTP/AVP 8 0 96 101\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n"
    b"a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
    b"m=video 4002 RTP/AVP 31\r\nb=AS:512\r\n"
)


class Holder:
    """What has a body."""

    def __init__(self, body: bytes = TEXT, content_type: str = "application/sdp") -> None:
        self.body = body
        self.content_type = content_type

    def set_body(self, body: bytes, content_type: str) -> None:
        self.body, self.content_type = body, content_type


def view(holder: Holder) -> Sdp:
    found = sdp_of(holder)
    assert found is not None
    return found


def lines(holder: Holder) -> list[str]:
    return holder.body.decode().splitlines()


def shown(stream: Stream) -> tuple[str, ...]:
    return stream.codecs


# the view


def test_what_a_description_shows() -> None:
    described = view(Holder())
    audio, video = described.streams
    assert (audio.kind, audio.port, audio.protocol, audio.direction) == ("audio", 4000, "RTP/AVP", "sendrecv")
    assert shown(audio) == ("PCMA/8000", "PCMU/8000", "opus/48000/2", "telephone-event/8000")
    assert (video.codecs, video.bandwidth, described.bandwidth) == (("H261/90000",), {"AS": 512}, {})
    assert (described.address, audio.address, video.is_rejected) == ("192.0.2.10", "192.0.2.10", False)
    assert audio.attributes("rtpmap") == ["96 opus/48000/2", "101 telephone-event/8000"]
    assert audio.attribute("ptime") is None
    assert described.text == TEXT.decode()
    first = described.audio
    assert first is not None
    assert first.port == 4000


def test_codecs_are_kept_removed_and_ordered() -> None:
    holder = Holder()
    described = view(holder)
    audio, video = described.streams
    assert audio.keep_codecs("opus", "pcma")
    assert shown(audio) == ("PCMA/8000", "opus/48000/2", "telephone-event/8000")
    audio.order_codecs("opus")
    assert "m=audio 4000 RTP/AVP 96 8 101" in lines(holder)
    assert audio.remove_codecs("opus", "telephone-event")
    assert shown(audio) == ("PCMA/8000",)
    assert "a=fmtp:96 useinbandfec=1" not in lines(holder)
    assert not audio.remove_codecs("PCMA")  # nothing would be left: nothing is changed
    assert shown(audio) == ("PCMA/8000",)
    assert shown(video) == ("H261/90000",)
    assert described.keep_codecs("PCMA")  # in every stream: the video has none of them
    assert (video.is_rejected, video.codecs, len(described.streams)) == (True, ("H261/90000",), 2)
    assert not described.keep_codecs("G729")
    with pytest.raises(RouteError):
        described.keep_codecs()


def test_directions_addresses_bandwidths_and_attributes() -> None:
    holder = Holder()
    described = view(holder)
    audio, video = described.streams
    audio.direction = "sendonly"
    assert (audio.direction, video.direction) == ("sendonly", "sendrecv")
    described.direction = "inactive"
    assert (audio.direction, video.direction, described.direction) == ("inactive", "inactive", "inactive")
    video.address = "2001:db8::1"
    assert (video.address, audio.address) == ("2001:db8::1", "192.0.2.10")
    described.address = "192.0.2.99"
    assert (video.address, audio.address) == ("192.0.2.99", "192.0.2.99")
    audio.set_bandwidth("AS", 64)
    video.set_bandwidth("AS", None)
    described.set_bandwidth("TIAS", 64000)
    assert (audio.bandwidth, video.bandwidth, described.bandwidth) == ({"AS": 64}, {}, {"TIAS": 64000})
    text = lines(holder)
    assert text.index("c=IN IP4 192.0.2.99") < text.index("b=TIAS:64000") < text.index("t=0 0")
    assert (
        text.index("m=audio 4000 RTP/AVP 8 0 96 101") < text.index("b=AS:64") < text.index("a=rtpmap:96 opus/48000/2")
    )
    audio.set_attribute("ptime", "30")
    audio.set_attribute("ptime", "20")
    audio.add_attribute("label", "x")
    audio.set_attribute("recvonly-hint")
    assert (audio.attribute("ptime"), audio.attribute("label"), audio.attribute("recvonly-hint")) == ("20", "x", "")
    assert (audio.remove_attribute("label"), audio.remove_attribute("label")) == (1, 0)
    video.reject()
    assert (video.is_rejected, described.video) == (True, None)


@pytest.mark.parametrize("value", ["x\r\na=evil", "x\0", "x\n"])
def test_nothing_can_be_smuggled_into_a_description(value: str) -> None:
    described = view(Holder())
    with pytest.raises(RouteError):
        described.streams[0].set_attribute("label", value)
    with pytest.raises(RouteError):
        described.set_bandwidth(value, 1)
    with pytest.raises(RouteError):
        described.address = value
    with pytest.raises(RouteError):
        described.direction = value  # type: ignore[assignment]  # what mypy would not let pass
    assert described.text == TEXT.decode()


MIXED = (
    b"--x\r\nContent-Type: application/sdp\r\n\r\n" + OFFER + b"\r\n"
    b"--x\r\nContent-Type: application/isup;version=itu\r\n\r\n\x01\x10\r\n--x--\r\n"
)


def test_parts_of_a_body() -> None:
    holder = Holder(MIXED, "multipart/mixed;boundary=x")
    parts = Parts(holder)
    assert (parts.types, len(parts)) == (("application/sdp", "application/isup"), 2)
    assert (parts.get("Application/ISUP"), parts.get("text/plain"), "application/isup" in parts) == (
        b"\x01\x10",
        None,
        True,
    )
    parts.set("application/isup", b"\x02")
    assert parts.get("application/isup") == b"\x02"
    view(holder).streams[0].direction = "sendonly"
    assert b"a=sendonly" in holder.body
    assert parts.get("application/isup") == b"\x02"
    assert parts.remove("application/isup")
    assert not parts.remove("application/isup")
    assert parts.types == ("application/sdp",)
    assert holder.body.endswith(b"\r\n--x--\r\n")
    with pytest.raises(RouteError, match="no part text/plain; there are: application/sdp"):
        parts.set("text/plain", b"")
    with pytest.raises(RouteError, match="cannot be told apart"):
        Parts(Holder(b"nonsense", "multipart/mixed;boundary=x")).get("text/plain")
    alone = Holder(b"hello", "text/plain; charset=utf-8")
    assert (Parts(alone).types, Parts(alone).get("text/plain"), sdp_of(alone)) == (("text/plain",), b"hello", None)
    assert Parts(alone).remove("text/plain")
    assert (alone.body, alone.content_type, Parts(alone).types) == (b"", "", ())


# in calls


def codecs(message_body: bytes) -> str:
    return next(line for line in message_body.decode().splitlines() if line.startswith("m=")).split(" ", 3)[3]


def test_a_description_that_the_request_route_changes_goes_to_every_branch() -> None:
    seen: list[str] = []
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        assert request.sdp is not None
        assert request.sdp.keep_codecs("PCMA")
        seen.append(codecs(request.body))
        request.call.media.engage()
        await request.call.dial(BOTH, on_branch=dress, on_reply=look, on_failure=hunt)

    @routes.branch_route
    async def dress(branch: Branch) -> None:
        assert branch.sdp is not None
        seen.append(codecs(branch.body))
        if branch.target.peer == "carrier-b":
            branch.sdp.streams[0].set_attribute("ptime", "30")

    @routes.onreply_route
    async def look(reply: Reply) -> None:
        if reply.sdp is not None:
            assert reply.content_type == "application/sdp"
            reply.sdp.streams[0].direction = "sendonly"
            seen.append(reply.sdp.streams[0].direction)

    @routes.failure_route
    async def hunt(failure: Failure) -> None:
        assert failure.request.sdp is not None
        seen.append(codecs(failure.request.body))
        await failure.call.dial_next()

    stage = Stage(routes)
    both = sdp(A_HOST).replace(b"AVP 0", b"AVP 0 8")
    stage.a.request("INVITE", body=both)
    stage.a.expect(100)
    first = stage.b.expect("INVITE").body
    assert b"a=ptime:30" in first
    stage.b.reply(503)
    second = stage.c.expect("INVITE").body
    assert b"a=ptime:30" not in second
    assert codecs(first) == codecs(second) == "8"
    stage.c.reply(200, body=sdp(B_HOST, codec="8"))
    assert b"a=sendonly" in stage.a.expect(200).body
    assert seen == ["8", "8", "8", "8", "sendonly"]


def test_a_body_that_the_caller_could_not_be_answered_by_is_refused_and_changes_nothing() -> None:
    routes = Routes()
    second = OFFER + b"m=video 4002 RTP/AVP 31\r\n"

    @routes.route
    async def main(request: Request) -> None:
        for body, kind in (
            (b"", ""),
            (second, "application/sdp"),
            (b"x", "text/plain"),
            (b"v=0\r\n", "application/sdp"),
        ):
            with pytest.raises(RouteError):
                request.set_body(body, kind)
        with pytest.raises(RouteError):
            request.headers.set("Content-Type", "text/plain")
        with pytest.raises(RouteError):
            request.set_body(OFFER, "application/sdp\r\nX-Evil: 1")
        assert request.body == OFFER
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.call_in()
    assert f"c=IN IP4 {A_HOST}".encode() in stage.b.expect("INVITE").body


def test_parts_of_a_call_cross_as_the_routes_leave_them() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        request.parts.set("application/isup", b"\x02")
        assert request.sdp is not None
        request.sdp.order_codecs("PCMU")
        await request.call.dial("carrier-b", on_branch=dress)

    async def dress(branch: Branch) -> None:
        assert branch.parts.types == ("application/sdp", "application/isup")
        assert branch.parts.get("application/isup") == b"\x02"
        branch.parts.set("application/isup", b"\x03")

    stage = Stage(routes)
    stage.a.request("INVITE", body=MIXED, content_type="multipart/mixed;boundary=x")
    stage.a.expect(100)
    sent = stage.b.expect("INVITE")
    assert sent.get("Content-Type") == "multipart/mixed;boundary=x"
    assert b"\r\n\r\n\x03\r\n--x--" in sent.body


def test_a_call_without_an_offer_gets_none_from_a_route() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        assert request.sdp is None
        with pytest.raises(RouteError, match="made no offer"):
            request.set_body(OFFER, "application/sdp")
        await request.call.dial("carrier-b")

    stage = Stage(routes)
    stage.a.request("INVITE")
    stage.a.expect(100)
    assert stage.b.expect("INVITE").body == b""


def test_a_reply_is_relayed_with_a_description_or_none() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.call.dial("carrier-b", on_reply=look)

    async def look(reply: Reply) -> None:
        with pytest.raises(RouteError):
            reply.set_body(b"x", "text/plain")
        if reply.status == 183:
            reply.set_body(b"", "")
            assert reply.sdp is None

    stage = Stage(routes)
    stage.call_in()
    stage.b.expect("INVITE")
    stage.b.reply(183, body=sdp(B_HOST))
    assert stage.a.expect(183).body == b""
