"""Any sequence of offers and answers within a call, through a real relay on pretended sockets (RFC 3264, RFC 6337).

After every exchange each side has one session: its m= lines never get fewer, its o= line is the same but for a version
that rises with every change, it is shown no address of the other side while media are relayed, and the ports and
addresses that the relay uses are those that the two descriptions in force say. At the end nothing is left.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from media.config import RealmInterface
from media.protocol import Reply
from media.relay import Relay
from media.session import NO_STREAM
from media.state import Arena
from sbc.b2bua.effects import MediaCommand
from sbc.sip.message import Message
from tests.support.fake_sockets import FakeSockets
from tests.support.ladder import A_HOST, B_HOST, MEDIA_A, MEDIA_B, Ladder, Phone

DIRECTIONS = ["sendrecv", "sendonly", "recvonly", "inactive"]
KINDS = ["audio", "video"]


class Line(NamedTuple):
    """One m= line of a phone; ``port`` 0: rejected. ``null``: held in the manner of RFC 2543."""

    kind: str
    port: int
    direction: str = "sendrecv"
    null: bool = False


def written(host: str, version: int, lines: list[Line]) -> bytes:
    """A description as a phone writes it."""
    out = ["v=0", f"o=phone 77 {version} IN IP4 {host}", "s=talk", f"c=IN IP4 {host}", "t=0 0"]
    for line in lines:
        payload = "0" if line.kind == "audio" else "31"
        out += [f"m={line.kind} {line.port} RTP/AVP {payload}", f"a={line.direction}"]
        if line.null:
            out.insert(-1, "c=IN IP4 0.0.0.0")
    return ("\r\n".join(out) + "\r\n").encode()


def read(body: bytes) -> list[tuple[str, int]]:
    """Kind and port of each m= line."""
    lines = [line.split(" ") for line in body.decode().split("\r\n") if line.startswith("m=")]
    return [(kind[2:], int(port)) for kind, port, *_ in lines]


def fitting(answer: list[Line], offer: bytes) -> list[Line]:
    """An answer with one line for each of an offer, which takes none that was rejected (RFC 3264 §6)."""
    found = []
    for index, (kind, port) in enumerate(read(offer)):
        line = answer[index] if index < len(answer) else Line(kind, 0)
        found.append(line if port else line._replace(kind=kind, port=0))
    return found


class RelayLadder(Ladder):
    """A ladder whose media node is a real relay."""

    def __init__(self, **settings_: Any) -> None:  # Any: as Ladder takes them
        super().__init__(**settings_)
        self.arena = Arena(-1, 8)
        self.sockets = FakeSockets(self.arena)
        realms = {
            "inside": RealmInterface(MEDIA_A, "", (20000, 20199), "never"),
            "outside": RealmInterface(MEDIA_B, "", (21000, 21199), "never"),
        }
        self.relay = Relay(realms, self.arena, self.sockets, Random(7), lambda *_: None, worker="media-0")

    def answer_media(self, command: MediaCommand) -> Reply:
        return self.relay.handle(command.request, b"sip-0", int(self.now * 1e9))


class Side:
    """A phone and its view of the session: ``mine`` and ``told`` are in force."""

    def __init__(self, phone: Phone, leg: str) -> None:
        self.phone = phone
        self.leg = leg
        self.version = 1
        self.mine: list[Line] = []
        self.told = b""
        self.next_port = 4000
        self.count = 0  # of m= lines

    def port(self) -> int:
        self.next_port += 2
        return self.next_port

    def describe(self, lines: list[Line]) -> bytes:
        self.version += 1
        return written(self.phone.host, self.version, lines)


class Session:
    """A call that is up, and what both sides hold to be its media."""

    def __init__(self, lines: list[Line], answer: list[Line], *, engage: bool = True) -> None:
        self.f = f = RelayLadder(engage=engage)
        self.a, self.b = Side(f.a, "a"), Side(f.b, "b1")
        self.relayed = engage
        self.a.mine, self.b.mine = lines, answer
        f.set_up(offer=written(A_HOST, 1, lines), answer=written(B_HOST, 1, answer))
        self.a.told = self.bodies(self.a)[-1]
        self.b.told = self.bodies(self.b)[-1]

    def bodies(self, side: Side) -> list[bytes]:
        return [msg.body for data in side.phone.all if (msg := Message.parse(data)).body]

    def reoffer(self, who: str, method: str, lines: list[Line], answer: list[Line] | int, *, late: bool) -> None:
        """One side changes the session, or asks the other to; ``answer`` may be a refusal, or 0 for a broken one."""
        one, other = (self.a, self.b) if who == "a" else (self.b, self.a)
        late = late and method == "INVITE" and isinstance(answer, list)
        one.phone.request(method, body=b"" if late else one.describe(lines))
        if method == "INVITE":
            one.phone.expect(100)
        asked = other.phone.expect(method)
        if isinstance(answer, int) and answer:
            other.phone.reply(answer, to=asked)
            if method == "INVITE":
                other.phone.expect("ACK")
                one.phone.refused(answer)
            else:
                one.phone.expect(answer)
            return
        if isinstance(answer, int):
            other.phone.reply(200, to=asked, body=other.describe([]))
            if method == "INVITE":
                other.phone.expect("ACK")
                one.phone.refused(488)
            else:
                one.phone.expect(488)
            return
        if late:  # the other side offers ``lines``, and this one answers
            other.phone.reply(200, to=asked, body=other.describe(lines))
            one.told = one.phone.expect(200).body
            said = fitting(answer, one.told)
            one.phone.ack(body=one.describe(said))
            other.told = other.phone.expect("ACK").body
            one.mine, other.mine = said, lines
            return
        said = fitting(answer, asked.body)
        other.phone.reply(200, to=asked, body=other.describe(said))
        one.told = one.phone.expect(200).body
        if method == "INVITE":
            one.phone.ack()
            other.phone.expect("ACK")
        other.told = asked.body
        one.mine, other.mine = lines, said

    def move(self, fate: str, lines: list[Line], answer: list[Line]) -> None:
        """Media leave the relay, or come back."""
        f, a, b = self.f, self.a, self.b
        ends: list[str] = []
        profile = None if self.relayed else "default"
        assert f.core.move_media(f.call, profile, lambda reason, _: ends.append(reason), f.now) == ""
        f.drain()
        asked = a.phone.expect("INVITE")
        if fate == "a":
            a.phone.reply(488, to=asked)
            a.phone.expect("ACK")
            return
        a.phone.reply(200, to=asked, body=a.describe(lines))
        offer = b.phone.expect("INVITE")
        if fate == "b":
            b.phone.reply(488, to=offer)
            b.phone.expect("ACK")
            assert a.phone.expect("ACK").body in self.bodies(a)[:-1]  # said before
            return
        said = fitting(answer, offer.body)
        b.phone.reply(200, to=offer, body=b.describe(said))
        b.phone.expect("ACK")
        a.told, b.told = a.phone.expect("ACK").body, offer.body
        a.mine, b.mine = lines, said
        self.relayed = not self.relayed
        assert ends == [""]

    def check(self) -> None:
        f = self.f
        for side, other in ((self.a, self.b), (self.b, self.a)):
            assert not side.phone.inbox, side.phone.inbox[0].raw
            sent = self.bodies(side)
            self.check_session(sent)
            assert len(read(side.told)) >= side.count
            side.count = len(read(side.told))
            if self.relayed:
                assert other.phone.host.encode() not in side.told
            else:
                assert [port for _, port in read(side.told)][: len(other.mine)] == [line.port for line in other.mine]
        if not self.relayed:
            assert not f.relay.sessions
            return
        session = f.relay.sessions[f.call.key]
        for stream, (mine, theirs) in enumerate(zip(self.a.mine, self.b.mine, strict=False)):
            for side, line in ((self.a, mine), (self.b, theirs)):
                rules = session.legs[side.leg].rules
                shown = read(side.told)[stream][1]
                if not mine.port or not theirs.port:
                    assert rules[stream] == NO_STREAM, (side.leg, stream)
                    continue
                rule = f.arena.rules[rules[stream]]
                assert shown == rule.local_port
                assert (str(rule.rtp_remote) == f"{side.phone.host}:{line.port}") is not line.null
        in_use = sum(index != NO_STREAM for leg in session.legs.values() for index in leg.rules)
        assert in_use == len(f.sockets.bound)

    @staticmethod
    def check_session(sent: list[bytes]) -> None:
        """What one side was sent from the beginning (RFC 3264 §8). After a refusal what was in force may be said again,
        octet for octet."""
        names = set()
        highest = 0
        for index, body in enumerate(sent):
            user, session_id, version, rest = body.partition(b"\r\no=")[2].partition(b"\r\n")[0].split(b" ", 3)
            names.add((user, session_id, rest))
            if body in sent[:index]:
                continue
            assert int(version) > highest
            highest = int(version)
        assert len(names) == 1

    def end(self, who: str) -> None:
        one, other = (self.a, self.b) if who == "a" else (self.b, self.a)
        one.phone.request("BYE")
        one.phone.expect(200)
        other.phone.reply(200, to=other.phone.expect("BYE"))
        self.f.over()
        assert not self.f.relay.sessions
        assert not self.f.sockets.bound


def some_lines(data: st.DataObject, side: Side, former: list[Line], at_least: int) -> list[Line]:
    """The next description of a side: every stream as it was, changed, rejected or used again, and maybe more."""
    count = max(len(former), at_least)
    count += data.draw(st.integers(0, 1)) if count < 4 else 0
    found = []
    for index in range(count):
        was = former[index] if index < len(former) else None
        what = data.draw(st.sampled_from(["same", "same", "moved", "held", "null", "gone", "other"]))
        kind = was.kind if was is not None else KINDS[index % 2]
        port = was.port if was is not None and was.port else side.port()
        direction = data.draw(st.sampled_from(DIRECTIONS)) if what == "held" else "sendrecv"
        if what == "moved":
            port = side.port()
        elif what == "gone" and index:
            port = 0
        elif what == "other" and was is not None and not was.port:  # RFC 3264 §8.1: a slot may be used again
            kind = data.draw(st.sampled_from(KINDS))
        found.append(Line(kind, port, direction, what == "null"))
    return found


@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(st.data())
def test_any_exchanges_keep_both_sides_of_one_mind(data: st.DataObject) -> None:
    first = [Line(KINDS[index % 2], 3000 + 10 * index) for index in range(data.draw(st.integers(1, 3)))]
    answer = [
        line._replace(port=line.port + 2 if not index or data.draw(st.booleans()) else 0)
        for index, line in enumerate(first)
    ]
    session = Session(first, answer)
    session.check()
    for _ in range(data.draw(st.integers(1, 6))):
        step = data.draw(st.sampled_from(["offer", "offer", "offer", "dies", "move"]))
        if step == "dies":
            session.f.dies()
        elif step == "move":
            lines = some_lines(data, session.a, session.a.mine, len(read(session.a.told)))
            said = answers(data, session.b, lines)
            session.move(data.draw(st.sampled_from(["well", "well", "a", "b"])), lines, said)
        else:
            who = data.draw(st.sampled_from(["a", "b"]))
            method = data.draw(st.sampled_from(["INVITE", "UPDATE"]))
            late = data.draw(st.booleans())
            one, other = (session.a, session.b) if who == "a" else (session.b, session.a)
            by, to = (other, one) if late and method == "INVITE" else (one, other)
            fate = data.draw(st.sampled_from([200, 200, 488, 0])) if session.relayed else 200
            if fate != 200:
                by, to, late = one, other, False
            lines = some_lines(data, by, by.mine, len(read(by.told)))
            said = answers(data, to, lines)
            session.reoffer(who, method, lines, said if fate == 200 else fate, late=late)
        session.check()
    session.end(data.draw(st.sampled_from(["a", "b"])))


def answers(data: st.DataObject, side: Side, lines: list[Line]) -> list[Line]:
    """An answer to these lines."""
    found = []
    for index, line in enumerate(lines):
        port = side.mine[index].port if index < len(side.mine) and side.mine[index].port else side.port()
        taken = line.port and (not index or data.draw(st.integers(0, 3)))
        found.append(Line(line.kind, port if taken else 0))
    return found
