"""Those of phones.py: registration, calls both ways, a desk and a mobile phone, the voicemail, emergencies."""

from sbc.simulator.command import try_all
from sbc.testing import Party, Sbc, staged

sbc = staged("../../phones.yaml")


def message(first: str, *, to: str, contact: str, call_id: str, body: bytes = b"") -> bytes:
    """A request as a phone or the registrar would write it."""
    head = [
        f"{first} SIP/2.0",
        f"Via: SIP/2.0/UDP {contact.partition('@')[2] or contact};branch=z9hG4bK{call_id};rport",
        "Max-Forwards: 70",
        "From: <sip:100@core.example>;tag=one",
        f"To: <sip:{to}@core.example>",
        f"Call-ID: {call_id}",
        f"CSeq: 1 {first.partition(' ')[0]}",
        f"Contact: <sip:{contact}>",
        *(["Content-Type: application/sdp"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*head, "", ""]).encode() + body


def registered(sbc: Sbc, user: str = "100") -> tuple[Party, str]:
    """A phone behind NAT that has registered, and the URI by which the registrar calls it."""
    phone, registrar = sbc.source("192.0.2.7:61234"), sbc.party("registrar")
    written = f"{user}@192.168.1.20:5062"
    phone.sends_as_it_is(message("REGISTER sip:core.example", to=user, contact=written, call_id="registration"))
    contact = registrar.gets("REGISTER").get("Contact") or ""
    assert "192.168.1.20" not in contact
    registrar.answers(200, headers=[("Contact", contact + ";expires=300")])
    assert f"<sip:{written}>" in (phone.gets(200).get("Contact") or "")
    return phone, contact.strip("<>")


def test_the_dry_runs_of_the_configuration_come_true(sbc: Sbc) -> None:
    for tried in try_all(sbc.config, None):
        assert not tried.unmet, tried.unmet


def test_the_registrar_calls_a_phone_behind_nat_where_it_was_seen(sbc: Sbc) -> None:
    phone, uri = registered(sbc, "200")
    registrar = sbc.party("registrar")
    registrar.calls(uri)
    invite = phone.gets("INVITE")
    assert invite.uri == "sip:200@192.168.1.20:5062"
    assert b"c=IN IP4 203.0.113.1\r\n" in invite.body
    phone.answers(200)
    registrar.gets(200)
    registrar.hangs_up()
    phone.gets("BYE")
    sbc.is_over()


def rings(sbc: Sbc) -> tuple[Party, Party, Party]:
    """The registrar calls user 100: his desk phone rings and, through the carrier, his mobile."""
    phone, uri = registered(sbc)
    registrar, carrier = sbc.party("registrar"), sbc.party("carrier")
    offer = registrar.description()
    invite = message(f"INVITE {uri}", to="100", contact="10.0.0.10:5060", call_id="forked", body=offer)
    registrar.sends_as_it_is(invite)
    phone.gets("INVITE")
    phone.answers(180)
    assert carrier.gets("INVITE").uri == "sip:+491700000100@198.51.100.7"
    registrar.gets(180)
    return registrar, phone, carrier


def test_desk_and_mobile_ring_together_and_the_first_answer_wins(sbc: Sbc) -> None:
    registrar, phone, carrier = rings(sbc)
    carrier.answers(200)
    registrar.gets(200)
    phone.gets("CANCEL")
    registrar.hangs_up()
    carrier.gets("BYE")
    sbc.is_over()


def test_the_voicemail_answers_when_nobody_does(sbc: Sbc) -> None:
    registrar, _, _ = rings(sbc)
    voicemail = sbc.party("voicemail")
    sbc.after(24)
    voicemail.gets_nothing()
    sbc.after(2)
    assert voicemail.gets("INVITE").uri == "sip:100@10.0.0.30"
    voicemail.answers(200)
    registrar.gets(200)


def test_who_declines_everywhere_is_not_sent_to_the_voicemail(sbc: Sbc) -> None:
    registrar, phone, _ = rings(sbc)
    phone.answers(603)
    registrar.gets(603)
    sbc.is_over()


def test_an_emergency_call_goes_out_without_being_asked_who_it_is(sbc: Sbc) -> None:
    phone = sbc.source("192.0.2.7")
    emergency, carrier = sbc.party("emergency"), sbc.party("carrier")
    phone.calls("112")
    assert emergency.gets("INVITE").get("Priority") == "emergency"
    sbc.after(9)
    assert carrier.gets("INVITE").uri == "sip:112@198.51.100.7"
    carrier.answers(486)
    sbc.party("registrar").gets("INVITE")


def test_what_a_phone_sends_beside_calls_is_for_the_registrar(sbc: Sbc) -> None:
    phone, registrar = sbc.source("192.0.2.7"), sbc.party("registrar")
    phone.calls("sip:200@core.example", method="MESSAGE")
    assert registrar.gets("MESSAGE").uri.startswith("sip:200@")
    registrar.answers(202)
    phone.gets(202)


def test_others_get_nothing(sbc: Sbc) -> None:
    assert sbc.dry_run("100", "voicemail").status == 403
