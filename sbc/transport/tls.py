"""The TLS contexts of a realm (RFC 3261 §26.3.1, RFC 5922): one for connections that come, one for those we make.

A reload makes new contexts for the connections from then on; what is open goes on with what it has.
"""

from __future__ import annotations

import ssl
from typing import Any

from sbc.config.models import Tls


def server_context(tls: Tls) -> ssl.SSLContext:
    """For connections that come: the certificate of the name that the client asks for, or else the first; with
    ``verify: peer`` only clients with one of ``ca`` (mutual TLS).

    Raises OSError (of which ssl.SSLError is one) where a file cannot be used.
    """
    context = _server_context(tls, tls.certificate, tls.key)
    by_name: dict[str, ssl.SSLContext] = {}
    for one in tls.by_name:
        named = _server_context(tls, one.certificate, one.key)
        by_name.update(dict.fromkeys(one.names, named))
    if by_name:

        def choose(connection: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            wanted = (name or "").lower().removesuffix(".")
            chosen = by_name.get(wanted) or by_name.get("*." + wanted.partition(".")[2])
            if chosen is not None:
                connection.context = chosen

        context.sni_callback = choose
    return context


def _server_context(tls: Tls, certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key)
    if tls.verify == "peer":
        context.load_verify_locations(tls.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: Tls) -> ssl.SSLContext:
    """For connections that we make: the other's certificate must be of ``ca`` (empty: of the system's authorities) and
    bear the name that we meant, unless ``verify: none``; ours is there for who asks. Raises OSError as above."""
    context = ssl.create_default_context(cafile=tls.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    if tls.verify == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def names_of(certificate: dict[str, Any]) -> list[str]:  # Any: as the ssl module has it
    """The host names of a certificate that was verified: those of subjectAltName, or where it has none the common name
    (RFC 5922 §7.1), in lower case."""
    names = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"]
    names += [value.removeprefix("sip:") for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    if not names:
        names = [value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"]
    return [str(name).lower().removesuffix(".") for name in names]
