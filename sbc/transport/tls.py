"""The TLS contexts of a realm (RFC 3261 §26.3.1, RFC 5922): one for connections that come, one for those we make.

A reload makes new contexts for the connections from then on; what is open goes on with what it has.
"""

from __future__ import annotations

import ssl

from sbc.config.models import Tls


def server_context(tls: Tls) -> ssl.SSLContext:
    """For connections that come: our certificate; with ``verify: peer`` only clients with one of ``ca`` (mutual TLS).

    Raises OSError (of which ssl.SSLError is one) where a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
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
