"""The SIP message, and what to do with one that breaks the grammar.

``Message.parse`` refuses a broken message with a SipSyntaxError. Where that error is not ``droppable`` the request can
still be answered::

    try:
        message = Message.parse(data)
    except SipSyntaxError as error:
        if not error.droppable and (broken := Message.parse_lenient(data)):
            send(reply_to(broken, error.status, received=(host, port)))

Refused with 400: a start line or header line that cannot be told apart, a NUL or a lone CR, an unterminated quote; Via,
From, To, Contact, Call-ID, CSeq, Max-Forwards or Content-Length malformed; one of Via, From, To, Call-ID, CSeq missing;
a header that may appear once appearing twice; a CSeq method other than the request's; a body shorter than
Content-Length; more than 200 header lines; on a stream, no empty line after the headers. With 414: a Request-URI
beyond 2048 octets. With 505: another SIP version. With 513: more than 65,535 octets. A response with any of these is
droppable.

Accepted though the grammar forbids it: a bare LF as line end; octets after the body of a datagram; a datagram cut
within its headers, whose last, partial line does not count; an unquoted display name of any printable characters other
than quotes, commas, semicolons and backslashes, unless a backslash stands before a quote; an absent Max-Forwards
(RFC 2543); '_' in host names; a status line without the blank before an empty reason.

What ``parse`` has accepted, ``from_()``, ``to()``, ``contact()`` and ``vias()`` can take apart.
"""

from __future__ import annotations

from sbc.sip import _message
from sbc.sip._message import Message
from sbc.sip._shard import peek_call_id
from sbc.sip.address import parse_name_addr
from sbc.sip.via import parse_via

_message._parse_via = parse_via
_message._parse_name_addr = parse_name_addr

__all__ = ["Message", "peek_call_id"]
