"""What routes change of a received request besides its headers: the URI, From, To and the body.

The request itself is replaced by one that says so, from which everything later is made. Its transaction keeps what
came, so that answers go back to what was asked.
"""

from __future__ import annotations

from sbc.b2bua import subjects
from sbc.b2bua.changes import Changes
from sbc.b2bua.shape import description
from sbc.errors import SdpError, SipSyntaxError
from sbc.routing.routes import RouteError
from sbc.sdp.description import SessionDescription
from sbc.sip.address import NameAddr
from sbc.sip.build import build_request
from sbc.sip.message import Message
from sbc.sip.uri import Uri, parse_uri

Subject = subjects.Call | subjects.OutOfDialogRequest


def message_of(subject: Subject) -> Message:
    """The request as it is now; raises RouteError for a call that was resumed, whose request is gone."""
    message = subject.request if isinstance(subject, subjects.Call) else subject.message
    if message is None:
        raise RouteError("the request of a resumed call is gone")
    return message


def changes_of(call: subjects.Call) -> Changes:
    """What the routes of this call have changed; to be added to."""
    if call.changes is None:
        call.changes = Changes(call.ruri, call.from_uri)
    return call.changes


def set_uri(subject: Subject, uri: Uri) -> None:
    """Another Request-URI."""
    text = _checked(uri)
    _replace(subject, uri=text)
    if isinstance(subject, subjects.Call):
        changes_of(subject).uri = text


def set_address(subject: Subject, header: str, address: NameAddr) -> None:
    """Another From or To: display name and URI. Its tag is the dialog's, and stays."""
    former = message_of(subject)
    now = former.from_() if header == "From" else former.to()
    text = _checked(address.uri)
    if not address.display.isprintable():
        raise RouteError(f"{header}: a display name holds printable characters only")
    _replace(subject, headers={header: str(NameAddr(address.display, address.uri, now.params))})
    if isinstance(subject, subjects.Call) and header == "From":
        changes_of(subject).from_uri = text


def with_number(uri: Uri, number: str) -> Uri:
    """The URI with another user part, which of a tel URI is the number."""
    if not number:
        raise RouteError("a number must not be empty; where nobody is to be named, change the URI")
    return uri.replace(user=number)


def set_body(subject: Subject, body: bytes, content_type: str) -> None:
    """Another body, of this type. That of a call goes on describing what A can be answered: as many streams as its own
    offer had, or none where it made none (RFC 3264 §6)."""
    if any(c in content_type for c in "\r\n\0"):
        raise RouteError("Content-Type: a value with a line end or NUL could smuggle in another header")
    if body and not content_type:
        raise RouteError("a body needs a Content-Type: request.set_body(body, content_type)")
    if not isinstance(subject, subjects.Call):
        _replace(subject, body=body, content_type=content_type)
        return
    former, former_body = subject.request, subject.body
    _replace(subject, body=body, content_type=content_type)
    assert subject.request is not None  # _replace() has made it
    described = description(subject.request)
    try:
        _check_streams(former_body, described)
    except RouteError:
        subject.request = former
        raise
    subject.body = described


def _check_streams(former: bytes, described: bytes) -> None:
    if bool(former) is not bool(described):
        had, has = ("an", "no") if former else ("no", "an")
        raise RouteError(
            f"the caller made {had} offer, and with this body there is {has} one: its answer would not fit"
        )
    if not former:
        return
    try:
        streams = len(SessionDescription.parse(described).streams)
    except SdpError as error:
        raise RouteError(f"the new body is no session description: {error}") from error
    asked = former.count(b"\nm=")
    if streams != asked:
        raise RouteError(f"the caller offers {asked} streams, and the new body {streams}: reject one, do not remove it")


def _replace(
    subject: Subject,
    *,
    uri: str | None = None,
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
    content_type: str | None = None,
) -> None:
    former = message_of(subject)
    changed = headers or {}
    items = [(name, changed.get(name, value)) for name, value in former.items()]
    if content_type is not None:
        dropped = ("content-type",) if body else ("content-type", "content-disposition", "content-language")
        items = [item for item in items if item[0].lower() not in dropped]
        if body:
            items.append(("Content-Type", content_type))
    try:
        now = Message.parse(
            build_request(
                former.method, former.uri if uri is None else uri, items, former.body if body is None else body
            )
        )
    except SipSyntaxError as error:
        raise RouteError(f"the request cannot be written so: {error.reason}") from error
    if isinstance(subject, subjects.Call):
        subject.request = now
    else:
        subject.message = now


def _checked(uri: Uri) -> str:
    text = str(uri)
    try:
        if parse_uri(text) != uri:
            raise RouteError(f"{text!r} would be read as another URI than was meant: escape what is special in it")
    except SipSyntaxError as error:
        raise RouteError(f"{text!r} is no URI: {error}") from error
    return text


def content_type_of(message: Message) -> str:
    """Its Content-Type, '' without one."""
    return message.get("Content-Type") or ""
