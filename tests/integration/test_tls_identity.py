"""Mutual TLS tells who is there where the address does not: by the names in the certificate that a client proves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.test_tls import TlsStream, tls_site, trusting
from tests.support.certificates import Authority
from tests.support.loopback import CALLER, OUTSIDE
from tests.support.raw import status_of
from tests.support.sbc import eventually, running

ROUTES = """
from sbc.routing import Request, Routes

routes = Routes()


@routes.route
async def main(request: Request) -> None:
    await request.reply(299, request.direction)
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "authority")


def test_clients_of_one_address_are_told_apart_by_their_certificates(tmp_path: Path, authority: Authority) -> None:
    """With several workers, so that most messages are handed over; who proves no configured name is a stranger."""
    net, port = tls_site(tmp_path / "sbc", authority, verify="peer")
    (tmp_path / "sbc" / "routes.py").write_text(ROUTES)
    peers = "".join(
        f"  {name}: {{ realm: outside, addresses: {CALLER}, direction: from_{name}, "
        f"match: {{ certificate: {its} }} }}\n"
        for name, its in (("alpha", "alpha.example"), ("beta", '["beta.example", "*.beta.example"]'))
    )
    head, _, tail = net.text.partition("  carrier:")
    text = head + peers + tail.partition("\n")[2]
    text = "routes: routes.py\n" + text.replace("sip: 1", "sip: 3")
    with running(tmp_path / "sbc", text) as sbc:
        for number, (subject, heard) in enumerate(
            (
                ("DNS:alpha.example", b"from_alpha"),
                ("DNS:edge.beta.example,DNS:other.example", b"from_beta"),
                ("DNS:beta.example", b"from_beta"),
            )
        ):
            own = authority.sign(f"client{number}", subject)
            with TlsStream(CALLER, (OUTSIDE, port), trusting(authority, own)) as stream:
                for _ in range(4):  # each with a Call-ID of its own
                    stream.send(stream.request("MESSAGE"))
                    answer = stream.next()
                    assert status_of(answer) == 299
                    assert heard in answer.split(b"\r\n")[0]
        unknown = authority.sign("unknown", "DNS:gamma.example")
        before = sbc.total("UNKNOWN_SOURCE_DROPPED")
        with TlsStream(CALLER, (OUTSIDE, port), trusting(authority, unknown)) as stream:
            stream.send(stream.request("MESSAGE"))
            eventually(lambda: sbc.total("UNKNOWN_SOURCE_DROPPED") > before, 5, "the stranger is dropped")
