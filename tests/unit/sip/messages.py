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


def request(
    *extra: str,
    start: str = "INVITE sip:bob@example.com SIP/2.0",
    body: bytes = b"",
    without: tuple[str, ...] = (),
    **changed: str,
) -> bytes:
    """A request whose header lines are LINES, less ``without``, changed by name (``Call_ID`` for Call-ID), plus
    ``extra`` lines; no Content-Length of its own."""
    lines = {**LINES, **{name.replace("_", "-"): line for name, line in changed.items()}}
    wanted = [line for name, line in lines.items() if name not in without]
    return "\r\n".join([start, *wanted, *extra, "", ""]).encode("utf-8", "surrogateescape") + body


def response(start: str = "SIP/2.0 200 OK", *extra: str, **changed: str) -> bytes:
    """The answer to ``request()``."""
    return request(*extra, start=start, **changed)
