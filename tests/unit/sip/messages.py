"""Messages for the tests of SIP syntax."""

from __future__ import annotations

VIA = "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport"
LINES = {
    "Via": VIA,
    "Max-Forwards": "Max-Forwards: 70",
    "From": 'From: "Alice" <sip:alice@example.com>;tag=a1',
    "To": "To: <sip:bob@example.com>",
    "Call-ID": "Call-ID: c1@192.0.2.1",
    "CSeq": "CSeq: 1 INVITE",
    "Contact": "Contact: <sip:alice@192.0.2.1:5060>",
}


def compose(
    start: str, changed: dict[str, str], extra: tuple[str, ...], without: tuple[str, ...], body: bytes
) -> bytes:
    """A message of LINES, less ``without``, changed by name, plus ``extra`` lines."""
    lines = {**LINES, **changed}
    wanted = [line for name, line in lines.items() if name not in without]
    return "\r\n".join([start, *wanted, *extra, "", ""]).encode("utf-8", "surrogateescape") + body


def request(
    *extra: str,
    start: str = "INVITE sip:bob@example.com SIP/2.0",
    body: bytes = b"",
    without: tuple[str, ...] = (),
    **changed: str,
) -> bytes:
    """A request with lines changed by name (``Call_ID`` for Call-ID); no Content-Length of its own."""
    return compose(start, {name.replace("_", "-"): line for name, line in changed.items()}, extra, without, body)


def response(start: str = "SIP/2.0 200 OK", *extra: str, **changed: str) -> bytes:
    """The answer to ``request()``."""
    return compose(start, changed, extra, (), b"")


def request_with(name: str, line: str) -> bytes:
    """``request()`` with one line changed."""
    return compose("INVITE sip:bob@example.com SIP/2.0", {name: line}, (), (), b"")
