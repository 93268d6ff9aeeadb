"""The journal record: everything comes back, and nothing that a record says is believed unchecked."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sbc.b2bua import snapshot
from sbc.b2bua.call import Call
from sbc.b2bua.core import Core
from sbc.b2bua.effects import Note
from sbc.b2bua.records import Left
from tests.support.hostile import ANYTHING
from tests.support.ladder import A_HOST, Ladder, counting_ids, sdp


def answered() -> Ladder:
    f = Ladder()
    f.set_up()
    return f


def fresh(f: Ladder) -> Core:
    return Core(f.core.settings, counting_ids(7))


def test_everything_comes_back() -> None:
    f = answered()
    call = f.call
    call.variables["route"] = {"class": 3}
    call.flags.add("paid")
    record = snapshot.encode(f.core, call, f.now)
    core = fresh(f)
    again = core.resume(record, f.now + 5, f.wall + 5)
    assert isinstance(again, Call)
    assert again.resumed
    for name in ("key", "shard", "state", "from_uri", "to_uri", "ruri", "status", "media_node", "has_media"):
        assert getattr(again, name) == getattr(call, name), name
    assert again.version == call.version + 1  # written anew: its own successor counts on from other CSeqs
    assert (again.variables, again.flags) == (call.variables, call.flags)
    assert again.answered_at == pytest.approx(call.answered_at)
    for old, new in zip(call.legs(), again.legs(), strict=True):
        for name in ("name", "flow", "realm", "peer", "direction", "session_id", "sdp_version", "sdp_text", "sdp_out"):
            assert getattr(new, name) == getattr(old, name), name
        for name in ("call_id", "local", "local_tag", "remote", "remote_tag", "remote_target", "route_set", "contact"):
            assert getattr(new.dialog, name) == getattr(old.dialog, name), name
        assert new.dialog.local_cseq > old.dialog.local_cseq + 50
        assert new.dialog.remote_cseq == old.dialog.remote_cseq
    assert again.lifetime_timer is not None
    assert again.lifetime_timer.deadline == pytest.approx(call.lifetime_timer.deadline)  # type: ignore[union-attr]  # it runs


def test_size() -> None:
    """A record is a key in a store: it should stay small."""
    f = answered()
    assert len(snapshot.encode(f.core, f.call, f.now)) < 3000


def test_text_that_is_no_utf8_survives() -> None:
    f = Ladder()
    sender = '"Andr\udce9" <sip:andre@192.0.2.10>;tag=t'  # one octet of Latin-1, as the parser hands it on
    f.a.dialog = ("id-1", sender, "<sip:+4930123@192.0.2.1>", "sip:+4930123@192.0.2.1")
    f.a.request("INVITE", body=sdp(A_HOST))
    f.a.expect(100)
    f.b.expect("INVITE")
    f.b.reply(200, body=sdp("198.51.100.20"))
    record = f.saves[-1].record
    assert record.startswith(b'{"octets"')
    again = fresh(f).resume(record, f.now, f.wall)
    assert isinstance(again, Call)
    assert again.a.dialog.remote == f.call.a.dialog.remote
    assert "\udce9" in again.a.dialog.remote


@pytest.mark.parametrize(
    "record",
    [b"", b"x", b"[]", b"{}", b"null", b'"text"', b'{"v":1}', b"{" * 100_000, b"[" * 100_000, b'{"octets":7}'],
)
def test_no_record(record: bytes) -> None:
    f = answered()
    core = fresh(f)
    assert core.resume(record, f.now, f.wall) is None
    assert not core.calls
    assert not core.legs


def test_a_record_of_a_later_release_is_left_where_it_is() -> None:
    """Whatever else is in it. Nothing ends, and no CDR is written: a node that can read it may go on with the call."""
    f = answered()
    raw = orjson.loads(snapshot.encode(f.core, f.call, f.now))
    raw["v"] = snapshot.VERSION + 1
    del raw["a"]
    core = fresh(f)
    assert isinstance(core.resume(orjson.dumps(raw), f.now, f.wall), Left)
    assert not core.calls
    effects = list(iter(core.poll, None))
    assert [type(effect).__name__ for effect in effects if not isinstance(effect, Note)] == []


def test_a_call_is_resumed_once() -> None:
    f = answered()
    record = snapshot.encode(f.core, f.call, f.now)
    assert f.core.resume(record, f.now, f.wall) is None
    core = fresh(f)
    assert core.resume(record, f.now, f.wall) is not None
    assert core.resume(record, f.now, f.wall) is None
    assert len(core.calls) == 1


F = answered()
GOOD: dict[str, Any] = orjson.loads(snapshot.encode(F.core, F.call, F.now))  # Any: JSON values
PATHS = [(name,) for name in GOOD] + [(leg, name) for leg in ("a", "b") for name in GOOD[leg]]
HOSTILE = st.one_of(
    ANYTHING,
    st.lists(st.one_of(st.integers(-(2**63), 2**63), st.text(max_size=5)), max_size=6),
)


@hypothesis_settings(max_examples=400, deadline=None)
@given(path=st.sampled_from(PATHS), value=HOSTILE)
@example(path=("v",), value=2)
def test_mutated_records(path: tuple[str, ...], value: object) -> None:
    """Refused, left to a later release, or resumed to a call that can be ended: no exception, never half a call."""
    raw = orjson.loads(orjson.dumps(GOOD))
    where = raw
    for name in path[:-1]:
        where = where[name]
    where[path[-1]] = value
    core = fresh(F)
    call = core.resume(orjson.dumps(raw), F.now, F.wall)
    if call is None or isinstance(call, Left):
        assert not core.calls
        assert not core.legs
        assert core.next_timer() is None
        return
    assert isinstance(call, Call)
    core.release(call, F.now, reason="test")
    while (effect := core.poll()) is not None:
        assert getattr(effect, "event", "") != "fault in the core", effect


@hypothesis_settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, len(orjson.dumps(GOOD)) - 1))
def test_truncated_records(cut: int) -> None:
    core = fresh(F)
    assert core.resume(orjson.dumps(GOOD)[:cut], F.now, F.wall) is None
    assert not core.calls
