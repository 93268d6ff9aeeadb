"""What a request route may decide besides dialling: redirect, drop, challenge."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from sbc.routing import Request, RouteError, Routes
from sbc.sip.digest import Credentials, Session, ha1, parse_challenges
from sbc.sip.message import Message
from tests.unit.routing.stage import OFFER, Stage

PASSWORDS = {"alice": "wonderland"}
CONTACTS = ["<sip:1@a.example>;q=1", "<sip:2@a.example>;q=0.25"]


def test_a_redirection_to_several_by_preference() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.redirect([("sip:1@a.example", 1.0), ("sip:2@a.example", 0.25)], status=300)

    stage = Stage(routes)
    stage.call_in()
    assert stage.a.refused(300).get_all("Contact") == CONTACTS
    stage.a.dialog = None
    stage.a.request("MESSAGE", body=b"x", content_type="text/plain")
    assert stage.a.expect(300).get_all("Contact") == CONTACTS


@pytest.mark.parametrize(
    ("to", "status"),
    [([], 302), ("no uri", 302), (("sip:1@a.example", 1.5), 302), ("sip:1@a.example", 200), ("sip:1@a.example", 404)],
)
def test_what_is_no_redirection_is_an_error_of_the_route(to: str, status: int) -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        with pytest.raises(RouteError):
            await request.redirect(to, status=status)
        await request.call.reject(403)

    stage = Stage(routes)
    stage.call_in()
    stage.a.refused(403)


@pytest.mark.parametrize("method", ["INVITE", "MESSAGE"])
def test_a_dropped_request_gets_no_answer_and_leaves_nothing_behind(method: str) -> None:
    routes = Routes()
    ran: list[str] = []

    @routes.route
    async def main(request: Request) -> None:
        ran.append(request.method)
        await request.drop()

    stage = Stage(routes)
    if method == "INVITE":
        stage.call_in()
    else:
        stage.a.request(method, body=b"x", content_type="text/plain")
    stage.a.again()
    stage.after(31)
    answers = [data for data in stage.a.all if not data.startswith(b"SIP/2.0 100 ")]
    assert answers == []
    assert ran == [method]
    stage.after(2)
    assert not stage.core.calls
    assert len(stage.core.layer) == 0
    assert stage.counts["REQUESTS_DROPPED"] == 1
    assert [cdr["status"] for cdr in stage.cdrs] == ([403] if method == "INVITE" else [])


def test_a_dropped_call_can_still_be_cancelled() -> None:
    routes = Routes()

    @routes.route
    async def main(request: Request) -> None:
        await request.drop()

    stage = Stage(routes)
    stage.call_in()
    stage.a.cancel()
    stage.a.expect(200)
    stage.a.nothing()


# who it is


def registering() -> tuple[Stage, list[str]]:
    """A stage that lets only those in who are known; and who came in."""
    routes = Routes()
    names: list[str] = []

    async def password_of(name: str) -> str | Mapping[str, str] | None:
        return PASSWORDS.get(name)

    @routes.route
    async def main(request: Request) -> None:
        if name := await request.authenticate("office.example", password_of):
            names.append(name)
            if request.makes_call:
                await request.call.dial("carrier-b")
            else:
                await request.relay("carrier-b")

    return Stage(routes), names


def answered(challenge: Message, password: str = "wonderland", algorithm: str = "MD5") -> Session:
    """What a phone makes of a challenge."""
    proxy = challenge.status == 407
    values = challenge.get_all("Proxy-Authenticate" if proxy else "WWW-Authenticate")
    found = [one for one in parse_challenges(values, proxy=proxy) if one.hash == algorithm]
    return Session(found[0], Credentials("alice", password), "c0ffee")


def header(session: Session, method: str, uri: str, body: bytes = b"") -> tuple[str, str]:
    return (session.header, session.answer(method, uri, body))


def ask(stage: Stage, *extra: tuple[str, str]) -> None:
    stage.a.dialog = None
    stage.a.request("MESSAGE", body=b"x", content_type="text/plain", extra=list(extra))


URI = "sip:+4930123@192.0.2.1"


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_who_proves_a_name_gets_on(algorithm: str) -> None:
    stage, names = registering()
    ask(stage)
    challenge = stage.a.expect(407)
    stage.b.nothing()
    ask(stage, header(answered(challenge, algorithm=algorithm), "MESSAGE", URI))
    sent = stage.b.expect("MESSAGE")
    assert names == ["alice"]
    assert sent.get("Proxy-Authorization") is None


def test_a_call_is_challenged_too() -> None:
    stage, names = registering()
    stage.call_in()
    challenge = stage.a.refused(407)
    stage.a.dialog = None
    stage.a.request("INVITE", body=OFFER, extra=[header(answered(challenge), "INVITE", URI, OFFER)])
    stage.a.expect(100)
    stage.b.expect("INVITE")
    assert names == ["alice"]


@pytest.mark.parametrize(
    ("password", "uri"), [("wrong", URI), ("wonderland", "sip:+4930124@192.0.2.1"), ("wonderland", "nonsense")]
)
def test_a_wrong_password_and_an_answer_for_another_request_prove_nothing(password: str, uri: str) -> None:
    stage, names = registering()
    ask(stage)
    session = answered(stage.a.expect(407), password)
    ask(stage, header(session, "MESSAGE", uri))
    again = stage.a.expect(407)
    assert "stale" not in (again.get("Proxy-Authenticate") or "")
    assert names == []


def test_each_answer_is_taken_once_and_for_five_minutes() -> None:
    stage, names = registering()
    ask(stage)
    session = answered(stage.a.expect(407))
    first = header(session, "MESSAGE", URI)
    ask(stage, first)
    stage.b.expect("MESSAGE")
    ask(stage, first)  # somebody has heard it
    assert "stale=true" in (stage.a.expect(407).get("Proxy-Authenticate") or "")
    ask(stage, header(session, "MESSAGE", URI))  # the same nonce, its count one more
    stage.b.expect("MESSAGE")
    stage.after(301)
    stage.a.inbox.clear()
    ask(stage, header(session, "MESSAGE", URI))
    assert "stale=true" in (stage.a.expect(407).get("Proxy-Authenticate") or "")
    assert names == ["alice", "alice"]


@pytest.mark.parametrize("jump_s", [3600.0, -3600.0])
def test_a_nonce_outlives_a_jump_of_the_wall_clock(jump_s: float) -> None:
    stage, names = registering()
    ask(stage)
    session = answered(stage.a.expect(407))
    stage.clock.wall_offset += jump_s
    ask(stage, header(session, "MESSAGE", URI))
    stage.b.expect("MESSAGE")
    assert names == ["alice"]


def test_a_nonce_of_another_worker_is_stale_and_one_of_nobody_too() -> None:
    stage, names = registering()
    other, _ = registering()
    ask(other)
    session = answered(other.a.expect(407))
    ask(stage, header(session, "MESSAGE", URI))
    assert "stale=true" in (stage.a.expect(407).get("Proxy-Authenticate") or "")
    assert names == []


def test_a_registrar_asks_for_itself_and_a_hash_will_do_for_a_password() -> None:
    routes = Routes()
    names: list[str] = []

    def secret_of(name: str) -> Mapping[str, str]:
        return {"SHA-256": ha1("SHA-256", name, "office.example", "wonderland")}

    @routes.route
    async def main(request: Request) -> None:
        if name := await request.authenticate("office.example", secret_of, algorithms=["SHA-256"]):
            names.append(name)
            await request.reply(200)

    stage = Stage(routes)
    stage.a.request("REGISTER")
    challenge = stage.a.expect(401)
    assert len(challenge.get_all("WWW-Authenticate")) == 1
    session = answered(challenge, algorithm="SHA-256")
    stage.a.dialog = None
    stage.a.request("REGISTER", extra=[header(session, "REGISTER", URI)])
    stage.a.expect(200)
    assert names == ["alice"]
