"""Where a registered phone is, sealed into the Contact that its registrar gets to see.

A registrar behind us must call its phones through us, and must not learn where they are. So a relayed REGISTER carries
a Contact of ours whose user part holds the phone's own Contact URI and the path to it, encrypted and authenticated
with a key of this node. There is no table: any worker opens it, before and after a restart, and what the registrar
forgets is forgotten. The same phone at the same place always gets the same text, so that a refresh is a refresh and
not one more binding (RFC 3261 §10.3 step 7).

The seal is a synthetic IV construction (RFC 5297 §2.6 in form) over keyed BLAKE2b: the tag authenticates the realm in
which the Contact was given out and the content, and is the nonce of the key stream.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import struct
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from sbc.b2bua.settings import ListenerSettings
from sbc.sip.flow import Flow

MAX_URI_OCTETS = 255  # registrars keep Contacts in columns of this order
_TAG_OCTETS = 10
_HEAD = struct.Struct("!4sQHB")  # mark of the listener, connection, port, octets of the address
_MIN_LENGTH = (_TAG_OCTETS + _HEAD.size + 4) * 4 // 3
_MAX_LENGTH = (_TAG_OCTETS + _HEAD.size + 16 + MAX_URI_OCTETS) * 4 // 3 + 2


class Binding(NamedTuple):
    """A phone's own Contact URI, as it wrote it, and the path by which it is reached."""

    uri: str
    flow: Flow


class Bindings:
    """Seals and opens Contacts. ``key`` is the node's secret; ``listeners`` in the order of ``Flow.listener``."""

    __slots__ = ("_listener", "_marks", "_seal_key", "_stream_key")

    def __init__(self, key: bytes, listeners: Sequence[ListenerSettings]) -> None:
        self._seal_key = blake2b(key=key, person=b"binding seal").digest()
        self._stream_key = blake2b(key=key, person=b"binding stream").digest()
        # A listener is named by what it is, so that a Contact outlives a change of their order.
        names = (f"{it.realm} {it.transport} {it.host} {it.port}".encode() for it in listeners)
        self._marks = [blake2b(name, digest_size=4).digest() for name in names]
        self._listener = {mark: (index, listeners[index].transport) for index, mark in enumerate(self._marks)}

    def seal(self, binding: Binding, realm: str) -> str | None:
        """The user part of a Contact for a registrar in ``realm``; None for a URI that is too long for one."""
        uri, flow = binding
        text = uri.encode("utf-8", "surrogateescape")
        if len(text) > MAX_URI_OCTETS:
            return None
        address = ipaddress.ip_address(flow.host).packed
        plain = _HEAD.pack(self._marks[flow.listener], flow.connection, flow.port, len(address)) + address + text
        tag = self._tag(plain, realm)
        return base64.urlsafe_b64encode(tag + self._crypt(plain, tag)).rstrip(b"=").decode()

    def open(self, user: str, realm: str) -> Binding | None:
        """What :meth:`seal` put into a user part for this realm; None for any other user part."""
        if not _MIN_LENGTH <= len(user) <= _MAX_LENGTH or not user.isascii():
            return None
        try:
            sealed = base64.b64decode(user + "=" * (-len(user) % 4), b"-_", validate=True)
        except binascii.Error:
            return None
        tag = sealed[:_TAG_OCTETS]
        plain = self._crypt(sealed[_TAG_OCTETS:], tag)
        if not hmac.compare_digest(tag, self._tag(plain, realm)):
            return None
        mark, connection, port, length = _HEAD.unpack_from(plain)
        listener = self._listener.get(mark)
        if listener is None:  # configured away since
            return None
        end = _HEAD.size + length
        host = str(ipaddress.ip_address(plain[_HEAD.size : end]))
        return Binding(plain[end:].decode("utf-8", "surrogateescape"), Flow(*listener, host, port, connection))

    def _tag(self, plain: bytes, realm: str) -> bytes:
        name = realm.encode()
        return blake2b(b"%d:%b%b" % (len(name), name, plain), key=self._seal_key, digest_size=_TAG_OCTETS).digest()

    def _crypt(self, text: bytes, nonce: bytes) -> bytes:
        """``text`` under the key stream of this nonce: the same for both directions."""
        length = len(text)
        blocks = (blake2b(b"%b%d" % (nonce, i), key=self._stream_key).digest() for i in range(-(-length // 64)))
        stream = b"".join(blocks)[:length]
        return (int.from_bytes(text, "big") ^ int.from_bytes(stream, "big")).to_bytes(length, "big")
