"""Subscriptions through the SBC as ladders (RFC 6665): SUBSCRIBE one way, NOTIFY the other, and every way to end."""

from __future__ import annotations

import orjson
import pytest

from sbc.b2bua.subjects import OutOfDialogRequest
from sbc.sip.flow import Flow
from sbc.sip.message import Message
from tests.support.ladder import A_HOST, B_HOST, C_HOST, OUR_A, OUR_B, TARGET_B, Ladder, Phone

EVENT = ("Event", "dialog;id=7")
ACTIVE, TERMINATED = "active;expires=600", "terminated;reason=noresource"
BODY = b"<dialog-info/>"


def relay_b(ladder: Ladder, request: OutOfDialogRequest) -> None:
    """The route of all these: to b."""
    ladder.core.requests.relay(request, TARGET_B, ladder.now)


def subscribe(phone: Phone, expires: int = 600, **fields: object) -> None:
    phone.request("SUBSCRIBE", extra=[EVENT, ("Expires", str(expires)), ("X-Internal", phone.host)], **fields)  # type: ignore[arg-type]  # what request takes


def notify(phone: Phone, state: str = ACTIVE, body: bytes = BODY) -> None:
    phone.request(
        "NOTIFY",
        body=body,
        content_type="application/dialog-info+xml",
        extra=[EVENT, ("Subscription-State", state), ("X-Internal", phone.host)],
    )


def join(phone: Phone, msg: Message) -> None:
    """The phone is in the dialog of this SUBSCRIBE, or of the 2xx to its own."""
    contact = msg.contact()
    assert contact is not None
    sender, receiver = msg.get("From") or "", msg.get("To") or ""
    if msg.is_request:
        phone.dialog = (msg.call_id, f"{receiver};tag={phone.tag}", sender, str(contact.uri))
    else:
        phone.dialog = (msg.call_id, sender, receiver, str(contact.uri))


def accepted(f: Ladder, expires: int = 600) -> None:
    """B has accepted A's SUBSCRIBE."""
    subscribe(f.a)
    asked = f.b.expect("SUBSCRIBE")
    join(f.b, asked)
    f.b.reply(200, to=asked, extra=[("Expires", str(expires)), ("X-Internal", B_HOST)])
    join(f.a, f.a.expect(200))


def notified(f: Ladder, state: str = ACTIVE) -> Message:
    """A NOTIFY of B's crosses, and so does its answer; what A got."""
    notify(f.b, state)
    sent = f.a.expect("NOTIFY")
    f.a.reply(200, to=sent)
    f.b.expect(200)
    return sent


def started(**changes: object) -> Ladder:
    f = Ladder(requests=relay_b, **changes)  # type: ignore[arg-type]  # fields of CoreSettings
    accepted(f)
    notified(f)
    return f


def ended(f: Ladder) -> None:
    """Neither side finds the subscription any more."""
    assert not f.core.requests.sides
    assert not f.records
    subscribe(f.a)
    f.a.expect(481)
    notify(f.b)
    f.b.expect(481)
    f.over()


def test_full_life() -> None:
    """
    A                  SBC                  B
    |--- SUBSCRIBE ---->|--- SUBSCRIBE ---->|
    |<----- 200 --------|<------ 200 -------|
    |<---- NOTIFY ------|<----- NOTIFY -----|   active
    |------ 200 ------->|------ 200 ------->|
    |--- SUBSCRIBE ---->|--- SUBSCRIBE ---->|   refresh
    |<----- 200 --------|<------ 200 -------|
    |--- SUBSCRIBE ---->|--- SUBSCRIBE ---->|   Expires: 0
    |<----- 200 --------|<------ 200 -------|
    |<---- NOTIFY ------|<----- NOTIFY -----|   terminated
    |------ 200 ------->|------ 200 ------->|
    """
    f = Ladder(requests=relay_b)
    subscribe(f.a)
    asked = f.b.expect("SUBSCRIBE")
    assert (asked.get("Event"), asked.get("Expires"), asked.get("X-Internal")) == ("dialog;id=7", "600", None)
    assert asked.uri == TARGET_B.uri
    contact = asked.contact()
    assert contact is not None
    assert contact.uri.host == OUR_B
    join(f.b, asked)
    f.b.reply(202, to=asked, extra=[("Expires", "500")])
    answer = f.a.expect(202)
    assert answer.get("Expires") == "500"
    join(f.a, answer)

    sent = notified(f)
    assert (sent.get("Event"), sent.get("Subscription-State")) == ("dialog;id=7", ACTIVE)
    assert (sent.body, sent.get("Content-Type")) == (BODY, "application/dialog-info+xml")
    assert sent.uri == f"sip:a@{A_HOST}:5070"
    assert sent.to_tag == f.a.tag
    contact = sent.contact()
    assert contact is not None
    assert contact.uri.host == OUR_A

    f.after(400)
    subscribe(f.a)
    refresh = f.b.expect("SUBSCRIBE")
    assert (refresh.call_id, refresh.to_tag, refresh.cseq_number) == (asked.call_id, f.b.tag, asked.cseq_number + 1)
    assert refresh.uri == f"sip:b@{B_HOST}:5070"
    f.b.reply(200, to=refresh, extra=[("Expires", "600")])
    assert f.a.expect(200).get("Expires") == "600"
    notified(f)

    f.after(400)
    subscribe(f.a, 0)
    last = f.b.expect("SUBSCRIBE")
    assert last.get("Expires") == "0"
    f.b.reply(200, to=last, extra=[("Expires", "0")])
    f.a.expect(200)
    notified(f, TERMINATED)
    for phone, host, ours in ((f.a, B_HOST, OUR_B), (f.b, A_HOST, OUR_A)):
        text = b"".join(phone.all).decode()
        other = "b" if phone is f.a else "a"
        for token in (host, ours, f"tag-of-{other}", f"Phone-{other}", f"call-of-{other}"):
            assert token not in text
    ended(f)


def test_notify_overtakes_the_answer() -> None:
    """RFC 6665 §4.1.2.4: the subscriber must be ready for it, and its tag is the one that counts (§4.4.1)."""
    f = Ladder(requests=relay_b)
    subscribe(f.a)
    asked = f.b.expect("SUBSCRIBE")
    join(f.b, asked)
    notify(f.b)
    sent = f.a.expect("NOTIFY")
    f.a.reply(200, to=sent)
    f.b.expect(200)
    f.b.reply(200, to=asked, extra=[("Expires", "600")])
    join(f.a, f.a.expect(200))
    assert sent.from_tag in (f.a.dialog or ("", "", ""))[2]
    notified(f, TERMINATED)
    ended(f)


def test_fetch() -> None:
    """Expires 0 from the start: one NOTIFY (RFC 6665 §4.4.3)."""
    f = Ladder(requests=relay_b)
    subscribe(f.a, 0)
    asked = f.b.expect("SUBSCRIBE")
    join(f.b, asked)
    notify(f.b, "terminated;reason=timeout")
    sent = f.a.expect("NOTIFY")
    f.b.reply(200, to=asked, extra=[("Expires", "0")])
    join(f.a, f.a.expect(200))
    f.a.reply(200, to=sent)
    f.b.expect(200)
    ended(f)


def test_refused() -> None:
    f = Ladder(requests=relay_b)
    for came, header in ((489, ("Allow-Events", "presence")), (423, ("Min-Expires", "900")), (603, ("X", "y"))):
        subscribe(f.a)
        f.b.reply(came, to=f.b.expect("SUBSCRIBE"), extra=[header])
        answer = f.a.expect(came)
        assert answer.get(header[0]) == (header[1] if header[0] != "X" else None)
    assert not f.core.requests.sides
    f.over()


def test_challenge_then_accepted() -> None:
    f = Ladder(requests=relay_b)
    subscribe(f.a)
    f.b.reply(401, to=f.b.expect("SUBSCRIBE"), extra=[("WWW-Authenticate", 'Digest realm="r", nonce="n"')])
    assert f.a.expect(401).get("WWW-Authenticate") == 'Digest realm="r", nonce="n"'
    f.a.request("SUBSCRIBE", extra=[EVENT, ("Expires", "60"), ("Authorization", 'Digest realm="r"')])
    asked = f.b.expect("SUBSCRIBE")
    assert asked.get("Authorization") == 'Digest realm="r"'
    join(f.b, asked)
    f.b.reply(200, to=asked, extra=[("Expires", "60")])
    join(f.a, f.a.expect(200))
    notified(f, TERMINATED)
    ended(f)


def test_lost_messages_are_repeated_once_each() -> None:
    f = started()
    f.lose_next = 1
    notify(f.b)
    f.a.nothing()
    f.b.again()  # absorbed
    f.after(0.5)
    sent = f.a.expect("NOTIFY")
    f.a.nothing()
    f.lose_next = 1
    f.a.reply(200, to=sent)
    f.b.nothing()
    f.b.again()
    f.b.expect(200)
    notified(f, TERMINATED)
    ended(f)


def test_subscriber_has_forgotten() -> None:
    """481 to a NOTIFY ends it on both sides (RFC 6665 §4.2.2)."""
    f = started()
    notify(f.b)
    f.a.reply(481, to=f.a.expect("NOTIFY"))
    f.b.expect(481)
    ended(f)


def test_subscriber_is_away() -> None:
    f = started()
    notify(f.b)
    f.after(33)
    f.a.inbox.clear()
    assert not f.core.requests.sides
    ended_ = f.b.expect(408)
    assert ended_.cseq_method == "NOTIFY"
    f.over()


def test_notifier_has_forgotten() -> None:
    """481 to a refresh ends it; another failure leaves it as it was (RFC 6665 §4.1.2.2)."""
    f = started()
    subscribe(f.a)
    f.b.reply(500, to=f.b.expect("SUBSCRIBE"))
    f.a.expect(500)
    notified(f)
    subscribe(f.a)
    f.b.reply(481, to=f.b.expect("SUBSCRIBE"))
    f.a.expect(481)
    ended(f)


def test_notifier_dies_and_time_runs_out() -> None:
    """A is told what B cannot say any more (RFC 6665 §4.2.1.4)."""
    f = started()
    f.after(631)
    f.a.nothing()
    f.after(1.2)
    sent = f.a.expect("NOTIFY")
    assert sent.get("Subscription-State") == "terminated;reason=timeout"
    assert sent.get("Event") == "dialog;id=7"
    f.a.reply(200, to=sent)
    f.b.nothing()
    assert f.counts["SUBSCRIPTIONS_EXPIRED"] == 1
    ended(f)


def test_notify_says_how_long_it_lasts() -> None:
    f = started()
    notified(f, "active;expires=2000")
    f.after(1500)
    f.a.nothing()
    notified(f, "active;expires=60")
    f.after(92.2)
    f.a.reply(200, to=f.a.expect("NOTIFY"))
    ended(f)


def test_first_notify_never_comes() -> None:
    """Timer N (RFC 6665 §4.1.2.4)."""
    f = Ladder(requests=relay_b)
    accepted(f)
    f.after(31)
    f.a.nothing()
    f.after(1.2)
    f.a.reply(200, to=f.a.expect("NOTIFY"))
    ended(f)


def test_nobody_answers_the_subscribe() -> None:
    f = Ladder(requests=relay_b)
    subscribe(f.a)
    asked = f.b.expect("SUBSCRIBE")
    f.after(31.1)
    f.a.expect(408)
    f.b.inbox.clear()
    f.b.reply(200, to=asked, extra=[("Expires", "600")])  # too late: nobody has subscribed
    f.a.nothing()
    join(f.b, asked)
    notify(f.b)
    f.b.expect(481)
    f.over()


def test_fork_downstream_gets_no_second_subscription() -> None:
    """A NOTIFY of another tag is of a fork (RFC 6665 §4.4.1): 481."""
    f = started()
    former, f.b.tag = f.b.tag, "another-fork"
    assert f.b.dialog is not None
    dialog = f.b.dialog
    f.b.dialog = (dialog[0], dialog[1].replace(former, f.b.tag), dialog[2], dialog[3])
    notify(f.b)
    f.b.expect(481)
    f.b.dialog = dialog
    notified(f, TERMINATED)
    ended(f)


def test_only_its_peer_may_speak_in_it() -> None:
    """Every octet right, only from another peer's address: as if there were no such subscription."""
    f = started()
    notify(f.b)
    f.a.reply(200, to=f.a.expect("NOTIFY"))
    f.b.expect(200)
    forged = f.b.sent.replace(b"z9hG4bKb", b"z9hG4bKforged").replace(b" NOTIFY\r", b"9 NOTIFY\r")
    f.deliver(forged, Flow(1, "udp", C_HOST, 5070))
    f.c.expect(481)
    f.a.nothing()
    assert f.counts["WRONG_SOURCE_REFUSED"] == 1
    notified(f, TERMINATED)
    ended(f)


@pytest.mark.parametrize(
    ("method", "status"), [("REFER", 405), ("BYE", 405), ("INFO", 405), ("INVITE", 405), ("NOTIFY", 405), ("FROB", 501)]
)
def test_other_methods_in_it(method: str, status: int) -> None:
    f = started()
    f.a.request(method)
    answer = f.a.expect(status)
    assert answer.get_all("Allow") == ["SUBSCRIBE", "NOTIFY"]
    if method == "INVITE":
        f.a.request("ACK", branch=answer.branch, cseq=answer.cseq_number)
    f.b.nothing()
    notified(f, TERMINATED)
    ended(f)


def test_what_is_wrong_with_a_request_in_it() -> None:
    f = started()
    subscribe(f.a, cseq=1)
    f.a.expect(500)
    f.a.request("SUBSCRIBE", extra=[("Require", "frob")])
    assert f.a.expect(420).get("Unsupported") == "frob"
    f.b.nothing()
    notified(f, TERMINATED)
    ended(f)


def test_without_contact_nobody_can_be_notified() -> None:
    f = Ladder(requests=relay_b)
    f.a.contact = "nonsense"
    subscribe(f.a)
    f.a.expect(400)
    f.b.nothing()
    f.over()


def test_draining_takes_no_new_ones() -> None:
    f = started()
    f.core.set_draining(True)
    dialog, f.a.dialog = f.a.dialog, None
    subscribe(f.a)
    assert f.a.expect(503).get("Retry-After")
    f.a.dialog = dialog
    notified(f, TERMINATED)
    ended(f)


def test_record_route_and_new_targets() -> None:
    """Each side's proxies stay on its side; a new Contact moves later requests (RFC 6665 §4.4.1, RFC 3261 §12.2)."""
    f = Ladder(requests=relay_b)
    route_a, route_b = f"<sip:{A_HOST}:5090;lr>", f"<sip:{B_HOST}:5091;lr>"
    f.a.request("SUBSCRIBE", extra=[EVENT, ("Expires", "600"), ("Record-Route", route_a)])
    asked = f.b.expect("SUBSCRIBE")
    assert asked.get("Record-Route") is None
    join(f.b, asked)
    f.b.reply(200, to=asked, extra=[("Expires", "600")])
    answer = f.a.expect(200)
    assert answer.get_all("Record-Route") == [route_a]
    join(f.a, answer)
    f.b.request("NOTIFY", extra=[EVENT, ("Subscription-State", ACTIVE), ("Record-Route", route_b)])
    sent = f.a.expect("NOTIFY")
    assert sent.get_all("Route") == [route_a]
    f.a.reply(200, to=sent)
    f.b.expect(200)
    f.a.contact = f"<sip:moved@{A_HOST}:5071>"
    subscribe(f.a)
    refresh = f.b.expect("SUBSCRIBE")
    assert refresh.get_all("Route") == [route_b]
    f.b.reply(200, to=refresh, extra=[("Expires", "600")])
    f.a.expect(200)
    assert notified(f, TERMINATED).uri == f"sip:moved@{A_HOST}:5071"
    ended(f)


def test_goes_on_after_the_death_of_its_worker() -> None:
    """The journal has both dialogs and the time that is left: NOTIFY, refresh and the end cross as before."""
    f = started()
    assert f.counts["SUBSCRIPTIONS_ACTIVE"] == 1
    f.after(100)
    f.dies()
    f.core.resume(next(iter(f.records.values())), f.now, f.wall)  # again: it is here already
    assert len(f.core.requests.sides) == 2
    notified(f)
    f.dies()
    subscribe(f.a)
    refresh = f.b.expect("SUBSCRIBE")
    f.b.reply(200, to=refresh, extra=[("Expires", "300")])
    assert f.a.expect(200).get("Expires") == "300"
    assert f.saves[-1].version > f.saves[0].version
    assert [save.key for save in f.core.records(f.now)] == list(f.records)
    notified(f, TERMINATED)
    ended(f)


def test_time_runs_out_while_nobody_is_there() -> None:
    f = started()
    f.now += 5000
    f.dies()
    f.after(1.2)
    f.a.reply(200, to=f.a.expect("NOTIFY"))
    ended(f)


def test_record_of_text_that_is_no_utf8() -> None:
    f = Ladder(requests=relay_b)
    f.a.contact = f"<sip:\udce9@{A_HOST}:5070>"
    accepted(f)
    notified(f)
    f.dies()
    assert notified(f, TERMINATED).uri == f"sip:\udce9@{A_HOST}:5070"
    ended(f)


HOSTILE: tuple[object, ...] = (None, -1, 1e300, 2**63, "x\r\nVia: y", "sip:" + "x" * 9000, [], {}, True)


def test_hostile_records_change_nothing() -> None:
    """Whatever a field is replaced by, and wherever a record is cut: refused with a reason, or harmless."""
    record = next(iter(started().records.values()))
    f = Ladder()
    fields = orjson.loads(record)
    paths = [[name] for name in fields] + [[side, name] for side in "ab" for name in fields[side]]
    refused = 0
    for path in paths:
        for value in HOSTILE:
            changed = at = orjson.loads(record)
            for name in path[:-1]:
                at = at[name]
            at[path[-1]] = value
            if f.core.resume(orjson.dumps(changed), f.now, f.wall) is None:
                refused += 1
            while f.core.requests.sides:
                next(iter(f.core.requests.sides.values())).subscription.forget(f.now)
    assert refused > 0.9 * len(paths) * len(HOSTILE)
    for cut in range(len(record)):
        assert f.core.resume(record[:cut], f.now, f.wall) is None
    f.drain()
    assert not f.core.requests.sides
    assert not [note for note in f.notes if note.event == "fault in the core"]
