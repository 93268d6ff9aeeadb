"""Digest: vectors of RFC 7616, 2617 and 2069, choice of algorithm, header syntax, and what the server side accepts."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sbc.errors import SipSyntaxError
from sbc.sip.digest import (
    ALGORITHMS,
    Challenge,
    Credentials,
    Session,
    challenges,
    choose,
    digest,
    ha1,
    parse_authorization,
    parse_challenges,
    response_of,
    session_key,
    verify,
)

MUFASA = Credentials("Mufasa", "Circle of Life")
# RFC 7616 §3.9.1: the same but for the algorithm
SHA = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)
CNONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"


def params(value: str) -> dict[str, str]:
    """Of an answer of ours: its parameters, without quotes."""
    assert value.startswith("Digest ")
    found = {}
    for item in value.removeprefix("Digest ").split(", "):
        name, _, text = item.partition("=")
        found[name] = text.strip('"')
    return found


def answer(challenge: str, credentials: Credentials, cnonce: str, method: str, uri: str, body: bytes = b"") -> str:
    (found,) = parse_challenges([challenge], proxy=False)
    return Session(found, credentials, cnonce).answer(method, uri, body)


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_rfc_7616_first_example(algorithm: str, response: str) -> None:
    value = answer(SHA.format(algorithm), MUFASA, CNONCE, "GET", "/dir/index.html")
    assert params(value) == {
        "username": "Mufasa",
        "realm": "http-auth@example.org",
        "uri": "/dir/index.html",
        "algorithm": algorithm,
        "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "nc": "00000001",
        "cnonce": CNONCE,
        "qop": "auth",
        "response": response,
        "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
    }


def test_rfc_7616_second_example_as_erratum_4897_corrects_it() -> None:
    # The RFC's own values were made with SHA-512 cut to 256 bits, which is not SHA-512/256.
    credentials = Credentials("J\u00e4s\u00f8n Doe", "Secret, or not?")
    value = answer(
        'Digest realm="api@example.org", qop="auth", algorithm=SHA-512-256, charset=UTF-8, userhash=true, '
        'nonce="5TsQWLVdgBdmrQ0XsxbDODV+57QdFR34I9HAbC/RVvkK", opaque="HRPCssKJSGjCrkzDg8OhwpzCiGPChXYjwrI2QmXDnsOS"',
        credentials,
        "NTg6RKcb9boFIAS3KrFK9BGeh+iDa/sm6jUMp2wds69v",
        "GET",
        "/doe.json",
    )
    found = params(value)
    assert found["username"] == "793263caabb707a56211940d90411ea4a575adeccb7e360aeb624ed06ece9b0b"
    assert found["response"] == "3798d4131c277846293534c3edc11bd8a5e4cdcbff78b05db9d95eeb1cec68a5"
    assert found["userhash"] == "true"
    name = f"{credentials.username}:api@example.org".encode()
    assert hashlib.sha512(name).hexdigest()[:32] == "488869477bf257147b804c45308cd62a", "what the RFC prints"


def test_rfc_2617_example() -> None:
    value = answer(
        'Digest realm="testrealm@host.com", qop="auth,auth-int", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41"',
        Credentials("Mufasa", "Circle Of Life"),
        "0a4f113b",
        "GET",
        "/dir/index.html",
    )
    assert params(value)["response"] == "6629fae49393a05397450978507c4ef1"
    assert "algorithm" not in params(value), "none was named"


def test_rfc_2069_without_qop() -> None:
    # The example of RFC 2069 §2.4, with the response that its erratum 749 gives.
    value = answer(
        'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093", '
        'opaque="5ccc069c403ebaf9f0171e9517f40e41"',
        Credentials("Mufasa", "CircleOfLife"),
        "unused",
        "GET",
        "/dir/index.html",
    )
    assert params(value)["response"] == "1949323746fe6a43ef61f9606e7febea"
    assert not {"qop", "nc", "cnonce"} & params(value).keys()


def test_sessions_and_integrity_by_hand() -> None:
    def h(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    value = answer(
        'Digest realm="r", nonce="n", qop="auth-int", algorithm=sha-256-SESS',
        Credentials("u", "p"),
        "c",
        "REGISTER",
        "sip:r",
        b"body",
    )
    a1 = h(h("u:r:p") + ":n:c")
    a2 = h("REGISTER:sip:r:" + h("body"))
    assert params(value)["response"] == h(f"{a1}:n:00000001:c:auth-int:{a2}")
    assert params(value)["algorithm"] == "sha-256-SESS", "named as it was named"


def test_the_nonce_count_goes_up_and_a_session_key_stays() -> None:
    (challenge,) = parse_challenges(['Digest realm="r", nonce="n", qop="auth", algorithm=MD5-sess'], proxy=True)
    session = Session(challenge, Credentials("u", "p", "r"), "c")
    assert session.header == "Proxy-Authorization"
    stored = ha1("MD5", "u", "r", "p")
    for count in (1, 2, 3):
        authorization = parse_authorization(session.answer("INVITE", "sip:x@y"))
        assert authorization is not None
        assert authorization.nc == count
        assert verify(authorization, stored, "INVITE")


# Which challenge


def one(algorithm: str, **fields: object) -> Challenge:
    return Challenge("r", "n", algorithm, ("auth",), **fields)  # type: ignore[arg-type]  # fields of Challenge


def test_the_strongest_of_several_is_chosen_whatever_their_order() -> None:
    offered = [one("MD5"), one("SHA-256"), one("SHA-512-256"), one("SHA-1"), one("")]
    for order in (offered, offered[::-1]):
        chosen = choose(order)
        assert chosen is not None
        assert chosen.algorithm == "SHA-512-256"
    assert choose([one("MD5"), one("")]) == one("MD5"), "of equals the first"
    assert choose([one("SHA-1"), one("AKAv1-MD5")]) is None
    assert choose([one("SHA-256"), one("MD5")], algorithms=("MD5",)) == one("MD5")


def test_other_realms_and_unknown_qop_are_left_out() -> None:
    foreign = Challenge("other", "n", "SHA-256", ("auth",))
    assert choose([foreign, one("MD5")], "r") == one("MD5")
    assert choose([foreign], "r") is None
    assert choose([Challenge("r", "n", "MD5", ("auth-conf",))]) is None
    odd = Challenge("r", "n", "MD5", ("token", "auth-int"))
    assert choose([odd]) == odd


def test_credentials_are_not_given_to_another_realm() -> None:
    with pytest.raises(ValueError, match="are for r"):
        Session(Challenge("evil", "n"), Credentials("u", "p", "r"), "c")
    with pytest.raises(ValueError, match="do not know"):
        Session(Challenge("r", "n", "SHA-1"), Credentials("u", "p", "r"), "c")


def test_a_second_challenge_is_answered_only_when_stale() -> None:
    session = Session(one("MD5"), Credentials("u", "p"), "c")
    assert not session.refused(one("MD5")), "nothing was answered yet"
    session.answer("INVITE", "sip:x@y")
    assert session.refused(one("MD5"))
    assert session.refused(Challenge("r", "another", "MD5", ("auth",)))
    assert not session.refused(one("MD5", stale=True))
    assert not session.refused(one("MD5", proxy=True)), "that is another server's"


# Syntax


def test_several_challenges_in_one_value_and_in_many() -> None:
    found = parse_challenges(
        [
            'Digest realm="a, b", nonce="1", algorithm=MD5 , Basic realm="x",Digest nonce="2",realm="\\"q\\\\"',
            'digest realm="c",nonce=3,stale=TRUE,qop="auth"',
        ],
        proxy=True,
    )
    assert [(c.realm, c.nonce) for c in found] == [("a, b", "1"), ('\\"q\\\\', "2"), ("c", "3")]
    assert [c.stale for c in found] == [False, False, True]
    assert all(c.proxy for c in found)


def test_what_stands_between_quotes_goes_back_as_it_came() -> None:
    value = answer('Digest realm="a\\"b", nonce="n\\\\"', Credentials('u"x\\', "p"), "c", "BYE", "sip:x")
    assert 'realm="a\\"b", nonce="n\\\\"' in value
    assert 'username="u\\"x\\\\"' in value
    authorization = parse_authorization(value)
    assert authorization is not None
    assert authorization.username == 'u"x\\'
    assert verify(authorization, ha1("MD5", 'u"x\\', 'a\\"b', "p"), "BYE")


@pytest.mark.parametrize(
    "value",
    [
        'Digest realm="a", nonce="1", nonce="2"',
        'Digest realm="a", nonce="1", qop="auth',
        'Digest realm="a" nonce="1"',
        'Digest realm="a"',
        'realm="a", nonce="1"',
        'Digest realm="a", nonce=1\\',
        "Digest",
        "",
        ",,,=,",
        'Digest realm="a", nonce="1"; stale=true',
        "Digest " + ", ".join(f"x{n}=1" for n in range(50)) + ', realm="a", nonce="1"',
    ],
)
def test_malformed_challenges_are_left_out(value: str) -> None:
    assert parse_challenges([value], proxy=False) == []


def test_a_flood_of_challenges_ends() -> None:
    assert len(parse_challenges(['Digest realm="a", nonce="1"'] * 1000, proxy=False)) == 16


@given(st.text(alphabet='Digest realm="\\,= \tnonce-sess/auth\x00\x7f\u00e4', max_size=200))
def test_no_header_value_raises(text: str) -> None:
    parse_challenges([text], proxy=False)
    with suppress(SipSyntaxError):
        parse_authorization("Digest " + text)


def test_a_value_of_64_kb_is_read_in_linear_time() -> None:
    begun = time.process_time()
    for part in ("a=", 'a="', "a ", "=", ",", '\\"', "a b ", 'x="\\', " \t"):
        parse_challenges(["Digest " + part * (65_000 // len(part))], proxy=False)
    assert time.process_time() - begun < 1.0, "it takes some milliseconds, and minutes where it is quadratic"


# Server side


def test_what_we_challenge_we_can_answer_and_check() -> None:
    values = challenges("sbc.example", "abc", algorithms=ALGORITHMS, qop=("auth", "auth-int"), opaque="o", stale=True)
    offered = parse_challenges(values, proxy=False)
    assert [c.hash for c in offered] == list(ALGORITHMS)
    assert all(c.stale and c.opaque == "o" and c.qop == ("auth", "auth-int") for c in offered)
    for challenge in offered:
        value = Session(challenge, Credentials("alice", "s3cret"), "cn").answer("REGISTER", "sip:sbc.example")
        authorization = parse_authorization(value)
        assert authorization is not None
        assert authorization.hash == challenge.hash
        stored = ha1(authorization.hash, "alice", "sbc.example", "s3cret")
        assert verify(authorization, stored, "REGISTER")
        assert not verify(authorization, ha1(authorization.hash, "alice", "sbc.example", "guess"), "REGISTER")
        assert not verify(authorization, stored, "INVITE")


def test_headers_of_ours_cannot_be_broken_out_of() -> None:
    for realm in ('a"b', "a\\", "a\r\nX: y"):
        with pytest.raises(ValueError, match="between quotes"):
            challenges(realm, "n")


def test_integrity_covers_the_body() -> None:
    (challenge,) = parse_challenges(['Digest realm="r", nonce="n", qop="auth-int"'], proxy=False)
    authorization = parse_authorization(
        Session(challenge, Credentials("u", "p"), "c").answer("PUBLISH", "sip:u@r", b"x")
    )
    assert authorization is not None
    stored = ha1("MD5", "u", "r", "p")
    assert verify(authorization, stored, "PUBLISH", b"x")
    assert not verify(authorization, stored, "PUBLISH", b"y")


GOOD = 'username="u", realm="r", nonce="n", uri="sip:r", response="{}"'


@pytest.mark.parametrize(
    "value",
    [
        "Digest ",
        'Digest username="u"',
        "Digest " + GOOD + ", qop=auth",
        "Digest " + GOOD + ', qop=auth, nc=1, cnonce="c"',
        "Digest " + GOOD + ', qop=auth, nc=0000000g, cnonce="c"',
        "Digest " + GOOD + ", qop=auth, nc=00000001",
        "Digest " + GOOD + ', realm="other"',
        "Digest " + GOOD + ", Digest " + GOOD,
        "Digest " + GOOD + ' and more"',
    ],
)
def test_malformed_credentials_are_400(value: str) -> None:
    with pytest.raises(SipSyntaxError) as caught:
        parse_authorization(value)
    assert caught.value.status == 400


def test_other_schemes_and_unknown_algorithms() -> None:
    assert parse_authorization("Basic dTpw") is None
    assert parse_authorization("Bearer x") is None
    right = digest("MD5", f"{ha1('MD5', 'u', 'r', 'p')}:n:{digest('MD5', 'REGISTER:sip:r')}")
    for extra, accepted in (
        ("", True),
        (", algorithm=md5", True),
        (", algorithm=SHA-1", False),
        (', qop=auth-conf, nc=00000001, cnonce="c"', False),
    ):
        authorization = parse_authorization("Digest " + GOOD.format(right) + extra)
        assert authorization is not None
        assert verify(authorization, ha1("MD5", "u", "r", "p"), "REGISTER") is accepted
    shouting = parse_authorization("Digest " + GOOD.format(right.upper()))
    assert shouting is not None
    assert verify(shouting, ha1("MD5", "u", "r", "p"), "REGISTER")
    strange = parse_authorization("Digest " + GOOD.format("\u00e4" * 32))
    assert strange is not None
    assert not verify(strange, ha1("MD5", "u", "r", "p"), "REGISTER")


def test_the_next_nonce_is_counted_anew() -> None:
    """RFC 7616 §3.5; the key of a session stays (§3.4.2)."""
    for algorithm in ("SHA-256", "MD5-sess"):
        (value,) = challenges("carrier.example", "n1", algorithms=(algorithm,))
        (challenge,) = parse_challenges([value], proxy=False)
        session = Session(challenge, Credentials("u", "p"), "c1")
        first = parse_authorization(session.answer("REGISTER", "sip:carrier.example"))
        session.renew('nextnonce="n\\"2", qop=auth, rspauth="00", cnonce="c1", nc=00000001')
        second = parse_authorization(session.answer("REGISTER", "sip:carrier.example"))
        assert first is not None
        assert second is not None
        assert (second.nonce, second.nc) == ('n\\"2', 1)
        key = ha1(algorithm, "u", "carrier.example", "p")
        if algorithm.endswith("-sess"):
            key = session_key(algorithm, key, "n1", "c1")
        expected = response_of(algorithm, key, second.nonce, "REGISTER", "sip:carrier.example", 1, "c1", "auth")
        assert second.response == expected


@pytest.mark.parametrize("info", ["", "nextnonce", 'nextnonce="', "qop=auth", 'nextnonce=""', '"nextnonce"=x', "\x00"])
def test_what_names_no_nonce_leaves_it(info: str) -> None:
    (challenge,) = parse_challenges(challenges("r", "n1", algorithms=("MD5",)), proxy=False)
    session = Session(challenge, Credentials("u", "p"), "c1")
    session.answer("REGISTER", "sip:r")
    session.renew(info)
    assert 'nonce="n1"' in (again := session.answer("REGISTER", "sip:r"))
    assert "nc=00000002" in again
