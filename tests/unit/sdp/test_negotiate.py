"""Offers that get more than was offered, answers that are turned back, and what is to be done with the packets."""

from __future__ import annotations

from media.protocol import Conversion, Processing, Way
from sbc.sdp import negotiate
from sbc.sdp.description import SessionDescription
from sbc.sdp.negotiate import NOTHING, Wish

EVENT = {101: "telephone-event/8000 0-16"}
OPUS = {111: "opus/48000/2 minptime=10"}


def sdp(numbers: str, formats: dict[int, str] | None = None, *more: str) -> SessionDescription:
    lines = ["v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "c=IN IP4 192.0.2.1", "t=0 0", f"m=audio 4000 RTP/AVP {numbers}"]
    for number, text in (formats or {}).items():
        encoding, _, parameters = text.partition(" ")
        lines.append(f"a=rtpmap:{number} {encoding}")
        if parameters:
            lines.append(f"a=fmtp:{number} {parameters}")
    return SessionDescription.parse("\r\n".join([*lines, *more, ""]).encode())


def offered(description: SessionDescription, wish: Wish, *former: SessionDescription, by: Wish = NOTHING) -> str:
    negotiate.offer(description, wish, by, former)
    return " ".join(description.streams[0].formats)


def lines(description: SessionDescription) -> list[str]:
    return [line for line in description.streams[0].passing if line.startswith(("a=rtpmap", "a=fmtp"))]


def test_codecs_are_added_behind_those_of_the_offer() -> None:
    offer = sdp("111 101", OPUS | EVENT)
    assert offered(offer, Wish(("pcma", "pcmu"))) == "111 8 0 101"
    assert lines(offer) == [
        *("a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10", "a=rtpmap:8 PCMA/8000", "a=rtpmap:0 PCMU/8000"),
        *("a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16"),
    ]
    assert offered(sdp("18"), Wish(("pcma",))) == "18"  # nobody can make PCMA of G.729
    assert offered(sdp("0 96", {96: "AMR/8000"}), Wish(("opus",))) == "0 96 97"


def test_telephone_event_comes_and_goes() -> None:
    assert offered(sdp("0"), Wish(digits="rfc4733")) == "0 101"
    assert offered(sdp("0 101", EVENT), Wish(digits="info")) == "0"
    assert offered(sdp("0 101", {101: "G726-32/8000"}), Wish(digits="rfc4733")) == "0 101 96"
    assert offered(sdp("0"), NOTHING, by=Wish(digits="info")) == "0 101"


def test_a_later_offer_keeps_payload_types() -> None:
    """RFC 3264 §8.3.2: what a number meant to this side it means for good."""
    former = sdp("8 96 101", {96: "opus/48000/2"} | EVENT)
    assert offered(sdp("111 0 96", OPUS | {96: "telephone-event/8000"}), NOTHING, former) == "96 0 101"
    assert offered(sdp("0"), NOTHING, former, by=Wish(("pcmu",))) == "0 8 96"


def answered(
    answer: SessionDescription, offer: SessionDescription, wish: Wish = NOTHING, offerer: Wish = NOTHING
) -> tuple[str, list[Processing]]:
    shown = SessionDescription.parse(offer.to_bytes())
    negotiate.offer(shown, wish, offerer, [])
    text = "\r\n".join(
        [*shown.lines, f"m=audio 4000 RTP/AVP {' '.join(shown.streams[0].formats)}", *shown.streams[0].passing, ""]
    )
    found = negotiate.answer(answer, SessionDescription.parse(text.encode()), offer, wish, offerer)
    return " ".join(answer.streams[0].formats), found


def test_a_codec_in_common_passes() -> None:
    shown, found = answered(sdp("0 101", EVENT), sdp("0 111 101", OPUS | EVENT), Wish(("pcma",)))
    assert (shown, found) == ("0 101", [])


def test_without_one_it_is_transcoded() -> None:
    answer = sdp("8 101", EVENT, "a=ptime:30")
    shown, found = answered(answer, sdp("111 101", OPUS | EVENT), Wish(("pcma",)))
    assert shown == "111 101"
    assert "a=rtpmap:8 PCMA/8000" not in lines(answer)
    event = Conversion(101, 101, "telephone-event")
    assert found == [
        Processing(
            Way([Conversion(111, 8, "opus", "PCMA", 48000, 8000), event], 101, packet_ms=30),
            Way([Conversion(8, 111, "PCMA", "opus", 8000, 48000), event], 101),
        )
    ]


def test_what_the_answerer_prefers_is_transcoded_only_where_the_offerer_lacks_it() -> None:
    shown, found = answered(sdp("8 0"), sdp("0"), Wish(("pcma",)))
    assert shown == "0"
    assert found[0].to_answerer == Way([Conversion(0, 0, "PCMU")])
    assert found[0].to_offerer == Way([Conversion(8, 0, "PCMA", "PCMU"), Conversion(0, 0, "PCMU")])


def test_payload_types_that_differ_are_mapped() -> None:
    """The answerer takes telephone-event under a number of its own."""
    answer = sdp("0 97", {97: "telephone-event/8000"})
    shown, found = answered(answer, sdp("0 101", EVENT), NOTHING, Wish(digits="rfc4733"))
    assert shown == "0 101"
    assert found[0].to_answerer is not None
    assert found[0].to_offerer is not None
    assert [(one.number, one.to) for one in found[0].to_answerer.formats] == [(0, 0), (101, 97)]
    assert [(one.number, one.to) for one in found[0].to_offerer.formats] == [(0, 0), (101, 101)]
    assert (found[0].to_answerer.digits, found[0].to_offerer.digits) == (97, 101)


def test_digits_for_a_side_that_wants_info_stay_here() -> None:
    shown, found = answered(sdp("0"), sdp("0 101", EVENT), Wish(digits="info"))
    assert shown == "0 101"
    assert found == [
        Processing(
            Way([Conversion(0, 0, "PCMU"), Conversion(101, -1, "telephone-event")], tell=True),
            Way([Conversion(0, 0, "PCMU")], 101, tell=True),
        )
    ]
    shown, found = answered(sdp("0 101", EVENT), sdp("0"), Wish(digits="rfc4733"), Wish(digits="info"))
    assert shown == "0"
    assert found[0].to_answerer == Way([Conversion(0, 0, "PCMU")], 101, tell=True)
    assert found[0].to_offerer == Way([Conversion(0, 0, "PCMU"), Conversion(101, -1, "telephone-event")], tell=True)


def test_a_rejected_stream_and_video_are_left_alone() -> None:
    rejected = SessionDescription.parse(sdp("0").to_bytes().replace(b"audio 4000", b"audio 0"))
    assert negotiate.answer(rejected, sdp("0"), sdp("0"), Wish(("pcma",)), NOTHING) == []
    video = SessionDescription.parse(sdp("0").to_bytes().replace(b"audio 4000", b"video 4000"))
    assert offered(video, Wish(("pcma",), "rfc4733")) == "0"
