"""Every fault of a configuration: its place and its exact words."""
# ruff: noqa: E501  # sentences are compared whole

from __future__ import annotations

import getpass
import re
from pathlib import Path

import pytest

from sbc.config import loader
from sbc.config.models import Config
from sbc.errors import ConfigError
from sbc.policy.admission import Admission
from sbc.sip.digest import Credentials
from sbc.worker.settings import core_settings, trunk_settings

GOOD = """\
run_dir: run
realms:
  core:
    listen: [udp:127.0.0.1:5060]
    media: { address: 127.0.0.1, ports: 30000-30999 }
  outside:
    listen: [udp:127.0.0.2:5060]
    media: { address: 127.0.0.2 }
peers:
  carrier-a: { realm: outside, addresses: 198.51.100.0/28, calls_to: core-a }
  core-a: { realm: core, addresses: [10.0.0.1], gateway: sip:10.0.0.1 }
"""


@pytest.fixture(autouse=True)
def _two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


def faults(text: str | bytes) -> list[str]:
    config, found = loader.check_text(text, "/etc/sbc/sbc.yaml")
    assert (config is None) == bool(found)
    return [str(fault).removeprefix("/etc/sbc/sbc.yaml:") for fault in found]


def changed(old: str, new: str) -> list[str]:
    assert GOOD.count(old) == 1
    return faults(GOOD.replace(old, new))


def test_a_good_file_has_no_faults_and_absolute_paths(tmp_path: Path) -> None:
    path = tmp_path / "conf" / "sbc.yaml"
    path.parent.mkdir()
    (path.parent / "mine.py").write_text("routes = 1\n")
    path.write_text(GOOD + "routes: mine.py\nstate_dir: ../state\ndatabase: sqlite:///sbc.db\ncdr: { csv: cdr.csv }\n")
    config = loader.load(path)
    assert config.run_dir == str(path.parent / "run")
    assert config.state_dir == str(tmp_path / "state")
    assert config.routes == str(path.parent / "mine.py")
    assert config.database == f"sqlite:///{path.parent}/sbc.db"
    assert config.cdr.csv == str(path.parent / "cdr.csv")
    assert [name for name, _ in config.listeners] == ["core", "outside"]


def test_absolute_paths_stay() -> None:
    config, found = loader.check_text(GOOD + "state_dir: /var/x\ndatabase: sqlite:////var/x/sbc.db\n", "sbc.yaml")
    assert not found
    assert isinstance(config, Config)
    assert (config.state_dir, config.database, config.cdr.csv) == ("/var/x", "sqlite:////var/x/sbc.db", "")


@pytest.mark.parametrize("name", ["sbc.yaml", "production.yaml"])
def test_the_files_that_we_ship_are_good(name: str) -> None:
    assert loader.check(Path(__file__).parents[3] / "conf" / name)[1] == []


def test_every_fault_is_told_at_once_in_the_order_of_the_file() -> None:
    text = """\
node: bad node
wrokers: { sip: 2 }
workers: { sip: many, media: 99 }
unknown_sources: drp
timers: { t1_ms: 1, invite_timeout_s: -1, t2_ms: 2.5 }
realms:
  core:
    listen: [udp:127.0.0.1:5060, spx:127.0.0.1:5060, "udp:999.0.0.1:5", foo]
    media: { address: 127.0.0.1, ports: 40000-30000 }
    trusted: perhaps
    trusted: true
  out:
    listen: []
    media: { address: example.org }
peers:
  a: { realm: core, addresses: [198.51.100.5/28, 300.1.1.1], gatway: x, gateway: 5, max_calls: -3 }
  b: { addresses: 10.0.0.1 }
  c: 7
"""
    assert faults(text) == [
        "1:7: node: 'bad node' should be letters, digits, '.' and '-' only, and begin with a letter or digit",
        "2:1: wrokers: unknown key, did you mean 'workers'?",
        "3:17: workers.sip: should be a whole number, not 'many'",
        "3:30: workers.media: should be at most 64, not '99'",
        "4:18: unknown_sources: should be 'drop' or 'refuse', not 'drp', did you mean 'drop'?",
        "5:18: timers.t1_ms: should be at least 10, not '1'",
        "5:39: timers.invite_timeout_s: should be greater than 0.0, not '-1'",
        "5:50: timers.t2_ms: should be a whole number, not '2.5'",
        "8:34: realms.core.listen.1: transport should be 'udp', 'tcp', 'tls', 'ws' or 'wss', not 'spx'",
        "8:54: realms.core.listen.2: '999.0.0.1' does not appear to be an IPv4 or IPv6 address",
        "8:73: realms.core.listen.3: 'foo' is not transport:address:port, for example udp:10.0.0.5:5060",
        "9:41: realms.core.media.ports: 40000-30000: the range must rise within 1024-65535",
        "11:5: realms.core.trusted: duplicate key, already given on line 10",
        "11:14: realms.core.trusted: should be true or false, not 'perhaps'",
        "13:13: realms.out.listen: should hold at least 1 entry",
        "14:23: realms.out.media.address: 'example.org' is not an IP address (host names are not taken here)",
        "16:33: peers.a.addresses.0: '198.51.100.5/28' has bits set behind its prefix, did you mean '198.51.100.0/28'?",
        "16:50: peers.a.addresses.1: '300.1.1.1' is not an IP address or network",
        "16:62: peers.a.gatway: unknown key, did you mean 'gateway'?",
        "16:82: peers.a.gateway: should be text: put '5' in quotes",
        "16:96: peers.a.max_calls: should be at least 0, not '-3'",
        "17:3: peers.b.realm: this key is required",
        "18:6: peers.c: should be a mapping of keys, not '7'",
    ]


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "realm: outside",
            "realm: outsid",
            "10:23: peers.carrier-a.realm: no realm is called 'outsid', did you mean 'outside'?",
        ),
        (
            "calls_to: core-a",
            "calls_to: cor-a",
            "10:70: peers.carrier-a.calls_to: no peer is called 'cor-a', did you mean 'core-a'?",
        ),
        (
            ", gateway: sip:10.0.0.1",
            "",
            "10:70: peers.carrier-a.calls_to: peers.core-a has no gateway to send calls to",
        ),
        (
            "udp:127.0.0.2:5060",
            "udp:127.0.0.1:5060",
            "7:14: realms.outside.listen.0: udp:127.0.0.1:5060 is taken by realms.core.listen.0",
        ),
        (
            "listen: [udp:127.0.0.2:5060]",
            "listen: [udp:0.0.0.0:5060]\n    advertise: 192.0.2.1",
            "7:14: realms.outside.listen.0: udp:0.0.0.0:5060 overlaps with realms.core.listen.0, as one of them listens on every address",
        ),
        (
            "udp:127.0.0.2:5060",
            "udp:0.0.0.0:5070",
            "7:14: realms.outside.listen.0: udp:0.0.0.0:5070 listens on every address, so the realm must say which one to advertise",
        ),
        (
            "media: { address: 127.0.0.2 }",
            "media: { address: 127.0.0.1, ports: 30999-31999 }",
            "8:41: realms.outside.media.ports: 30999-31999 overlaps with 30000-30999 of realms.core.media.ports on the same address 127.0.0.1",
        ),
        (
            "30000-30999",
            "5000-5999",
            "5:41: realms.core.media.ports: 5000-5999 covers port 5060, on which realms.core listens for SIP",
        ),
        (
            "media: { address: 127.0.0.2 }",
            "media: { address: 127.0.0.2, advertise: '::1' }",
            "8:45: realms.outside.media.advertise: ::1 is IPv6, but the address is IPv4",
        ),
        (
            "realms:",
            "store: redsi://x\nrealms:",
            "2:8: store: 'redsi' is neither 'embedded', 'none' nor one of redis://…, rediss://…,"
            " unix://…, sentinel://…, sentinel+tls://…, cluster://…, cluster+tls://…",
        ),
        (
            "realms:",
            "store: sentinel://a:1\nrealms:",
            "2:8: store: a sentinel:// URL ends with the name of the service, for example"
            " sentinel://10.9.0.5,10.9.0.6,10.9.0.7/sbc-store",
        ),
        (
            "ports: 30000-30999 }",
            "ports: 30001-30004 }",
            "5:41: realms.core.media.ports: 30001-30004 has room for 1 streams, too few for 2 media workers",
        ),
        (
            "media: { address: 127.0.0.2 }",
            "media: { address: 127.0.0.2 }\n    advertise: 5",
            "9:16: realms.outside.advertise: '5' is not an IP address",
        ),
        (
            "realms:",
            "database: mine\nrealms:",
            "2:11: database: 'mine' is not a database URL, for example sqlite:///sbc.db",
        ),
        (
            "realms:",
            "user: nosuchuser\nrealms:",
            "2:7: user: there is no user 'nosuchuser' on this machine: useradd --system nosuchuser",
        ),
        ("realms:", "routes: mine.py\nrealms:", "2:9: routes: cannot read /etc/sbc/mine.py: no such file or directory"),
        (
            "realms:",
            "management: { metrics: 9090 }\nrealms:",
            "2:24: management.metrics: should be text: put '9090' in quotes",
        ),
        (
            "realms:",
            "management: { metrics: localhost:90 }\nrealms:",
            "2:24: management.metrics: 'localhost:90' is not address:port, for example 127.0.0.1:9090",
        ),
        (
            "addresses: [10.0.0.1]",
            "addresses: [10.0.0.1]\n    , bogus: 1",
            "12:7: peers.core-a.bogus: unknown key; the keys here are realm, addresses, match, direction, gateway, tls_name, calls_to, auth, register, profile, media_set, srtp, follow_redirects, transfers, header_rules, number_plan, reply_codes, failover_on, max_calls, max_cps",
        ),
    ],
)
def test_one_fault_one_sentence(old: str, new: str, fault: str) -> None:
    assert changed(old, new) == [fault]


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ("far: []", "3:8: media_sets.far: should hold at least 1 entry"),
        ("far: [{}]", "3:9: media_sets.far.0: name either workers: local, or the url of a media worker elsewhere"),
        (
            "far: [{ url: tcp://10.0.0.9:7700 }]",
            "3:9: media_sets.far.0: tcp://10.0.0.9:7700 takes the key of that media node, as sbc media keygen prints"
            " it there",
        ),
        (
            "far: [{ url: 'tcp://[::1]:7700', key: short }]",
            "3:41: media_sets.far.0.key: not a CURVE public key: 40 characters, as sbc media keygen prints them",
        ),
        (
            "far: [{ url: tcp://media.example:7700 }]",
            "3:16: media_sets.far.0.url: 'tcp://media.example:7700' is not tcp://address:port, for example"
            " tcp://10.0.0.9:7700",
        ),
        (
            "far: [{ workers: local, weight: 0 }]",
            "3:8: media_sets.far: every member is a spare (weight 0), so there is nothing to be a spare for",
        ),
        (
            "far: [{ workers: local }, { workers: local, weight: 2 }]",
            "3:29: media_sets.far.1: workers: local is in this set already",
        ),
    ],
)
def test_media_sets(block: str, fault: str) -> None:
    assert changed("realms:", f"media_sets:\n  {block}\nrealms:") == [fault]


def test_a_media_set_is_chosen_by_its_name() -> None:
    assert changed("realm: core,", "realm: core, media_set: locla,") == [
        "11:37: peers.core-a.media_set: no media set is called 'locla', did you mean 'local'?"
    ]
    assert changed("realm: core,", "realm: core, media_set: local,") == []


@pytest.mark.parametrize(
    ("block", "fault"),
    [
        ("webrtc: {}", "'webrtc' is built in: give yours another name"),
        ("secure: {}", "'secure' is built in: give yours another name"),
        (
            "mine: { codecs: { allow: [P CMA] } }",
            "'P CMA' is not the name of a codec, for example PCMA, opus or L16/44100",
        ),
        (
            "mine: { codecs: { allow: [PCMA], strip: [pcma] } }",
            "pcma is stripped, so it cannot be in allow or order too",
        ),
        (
            "mine: { direct: true, latch: learn }",
            "with direct: true we relay nothing, so nothing else can be said here",
        ),
        ("mine: { ice: lite }", "ICE is for browsers, which speak DTLS-SRTP: add srtp: dtls"),
        ("mine: { ice: lite, srtp: required }", "ICE is for browsers, which speak DTLS-SRTP: add srtp: dtls"),
        ("mine: { ice: lite, srtp: dtls, latch: fixed }", "with ice: lite media go where its checks come from"),
        ("mine: { record: wav }", "media: recordings names no directory to record into"),
        ("mine: { music: hold.wav }", "media: prompts names no directory of files to play"),
        ("mine: { music: ../hold.wav }", "'../hold.wav' is not a name below media: prompts"),
        ("mine: { record: mp3 }", "should be 'off', 'wav' or 'pcap', not 'mp3'"),
        ("mine: { latch: learned }", "should be 'fixed', 'signalled' or 'learn', not 'learned', did you mean 'learn'?"),
    ],
)
def test_media_profiles(block: str, fault: str) -> None:
    (told,) = changed("realms:", f"media_profiles:\n  {block}\nrealms:")
    assert told.endswith(f": {fault}")


def test_prompts_are_looked_for(tmp_path: Path) -> None:
    """In the directory of this machine, unless media nodes elsewhere may have them in theirs."""
    (tmp_path / "hold.wav").write_bytes(b"")
    block = f"media: {{ prompts: {tmp_path} }}\nmedia_profiles: {{ mine: {{ music: %s.wav }} }}\n%srealms:"
    assert changed("realms:", block % ("hold", "")) == []
    (told,) = changed("realms:", block % ("other", ""))
    assert told.endswith(f"media_profiles.mine.music: there is no file {tmp_path}/other.wav")
    assert changed("realms:", block % ("other", "media_sets: { far: [{ url: 'tcp://127.0.0.9:7700' }] }\n")) == []
    (told,) = changed("realms:", f"media: {{ prompts: {tmp_path}/none }}\nrealms:")
    assert told.endswith(f"media.prompts: there is no directory {tmp_path}/none")


def test_a_media_profile_is_chosen_by_its_name() -> None:
    assert changed("realm: core,", "realm: core, profile: carier,") == [
        "11:35: peers.core-a.profile: no media profile is called 'carier', did you mean 'carrier'?"
    ]
    assert changed("realm: core,", "realm: core, profile: webrtc,") == []
    assert changed("realm: core,", "realm: core, profile: secure, srtp: optional,") == [
        "11:49: peers.core-a.srtp: the media profile 'secure' says 'required': say it once"
    ]
    assert changed("realm: core,", "realm: core, profile: carrier,") == []


def test_cross_checks_run_beside_unknown_keys() -> None:
    text = GOOD.replace("realm: core,", "realm: cor, transprt: udp,")
    assert [fault.split(": ")[1] for fault in faults(text)] == ["peers.core-a.realm", "peers.core-a.transprt"]


def test_two_peers_cannot_have_the_same_network_in_one_realm() -> None:
    text = GOOD + "  twin: { realm: core, addresses: [10.9.9.9, 10.0.0.1] }\n"
    assert faults(text) == ["12:46: peers.twin.addresses.1: 10.0.0.1/32 belongs to peers.core-a in the same realm"]


def test_a_run_dir_too_long_for_sockets() -> None:
    assert faults(GOOD.replace("run_dir: run", "run_dir: /" + "r" * 93)) == [
        f"1:10: run_dir: /{'r' * 93} is too long for the Unix sockets in it: at most 92 octets"
    ]


def test_the_own_user_exists() -> None:
    assert faults(GOOD + f"user: {getpass.getuser()}\n") == []


def test_routes_must_be_python(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def f(:\n")
    found = faults(GOOD + f"routes: {tmp_path}/mine.py\n")
    assert found == [f"12:9: routes: {tmp_path}/mine.py is not Python in line 1: invalid syntax"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "1:1: the file is empty"),
        ("# nothing\n", "1:1: the file is empty"),
        ("- 1\n", "1:1: the file should be a mapping of keys, such as 'realms:'"),
        ("a: [1,\nb: }", "2:4: not YAML: while parsing a flow node expected the node content, but found '}'"),
        ("a: &a [*a]\n", "1:1: not YAML: an alias refers to what contains it"),
        (b"node: \xff\n", "1:1: not YAML: 'utf-8' codec can't decode byte 0xff in position 6: invalid start byte"),
    ],
)
def test_what_is_not_a_configuration_at_all(text: str | bytes, fault: str) -> None:
    assert faults(text) == [fault]


def test_it_reads_yaml_1_2() -> None:
    config, found = loader.check_text(GOOD.replace("gateway:", "direction: no, gateway:"), "sbc.yaml")
    assert not found
    assert config is not None
    assert config.peers["core-a"].direction == "no"  # YAML 1.1 would have read false


def test_off_is_a_word_of_srtp() -> None:
    config, found = loader.check_text(GOOD.replace("ports:", "srtp: off, ports:"), "sbc.yaml")
    assert config is not None, found
    assert {realm.media.srtp for realm in config.realms.values()} == {"off"}


def test_an_anchor_keeps_the_place_of_its_keys() -> None:
    text = (
        GOOD
        + "  b:\n    <<: &base { realm: core, addresses: 10.0.0.3 }\n  c:\n    <<: *base\n    addresses: 10.0.0.4\n"
    )
    assert faults(text) == []
    assert faults(text + "    boogus: 1\n")[0].startswith("17:5: peers.c.boogus: unknown key")


def test_an_empty_key_is_no_key() -> None:
    assert faults(GOOD + "timers:\ncdr: {}\n") == []


def test_load_raises_with_every_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loader.load(tmp_path / "absent.yaml")
    assert caught.value.faults == [f"{tmp_path}/absent.yaml:1:1: cannot read the file: no such file or directory"]


GATEWAY = "sip:4711@10.0.0.1:5070;transport=udp"
TRUNK = GOOD.replace("gateway:", "auth: { username: u, password: p }, register: WHAT, gateway:")


@pytest.mark.parametrize(
    ("what", "wanted"),
    [
        ("true", ("sip:10.0.0.1:5070", GATEWAY, "sip:u@10.0.0.1", "u", 3600, False)),
        ("{}", ("sip:10.0.0.1:5070", GATEWAY, "sip:u@10.0.0.1", "u", 3600, False)),
        (
            '{ registrar: "sip:carrier.example", expires_s: 600, contact_user: "+49307", required: true }',
            ("sip:carrier.example", "sip:carrier.example", "sip:u@carrier.example", "+49307", 600, True),
        ),
        (
            '{ registrar: "sips:carrier.example;transport=tcp", proxy: "sip:10.0.0.1", aor: "sip:4930@x.example" }',
            ("sips:carrier.example", "sip:10.0.0.1", "sip:4930@x.example", "4930", 3600, False),
        ),
    ],
)
def test_a_trunk_takes_from_the_gateway_what_it_is_not_told(what: str, wanted: tuple[object, ...]) -> None:
    text = re.sub(r"gateway: \S+", f'gateway: "{GATEWAY}"', TRUNK.replace("WHAT", what))
    config, found = loader.check_text(text, "sbc.yaml")
    assert not found
    assert config is not None
    (trunk,) = trunk_settings(config)
    required = core_settings(config, bytes(16), Admission({}, config.realms), frozenset()).registration_required
    assert (
        *(trunk.registrar, trunk.proxy, trunk.aor, trunk.contact_user, trunk.expires_s),
        trunk.peer in required,
    ) == wanted
    assert trunk.credentials == Credentials("u", "p")


def test_a_trunk_that_is_switched_off() -> None:
    config, _ = loader.check_text(TRUNK.replace("WHAT", "false"), "sbc.yaml")
    assert config is not None
    assert trunk_settings(config) == []


@pytest.mark.parametrize(
    ("what", "fault"),
    [
        ("{ expires: 60 }", "unknown key, did you mean 'expires_s'?"),
        ("{ expires_s: 5 }", "should be at least 10, not '5'"),
        ("{ registrar: carrier.example }", "'carrier.example' is not a SIP URI, for example sip:198.51.100.5:5060"),
        ('{ aor: "sip:a b@c" }', "'sip:a b@c' is not a SIP URI, for example sip:198.51.100.5:5060"),
        ('{ registrar: "sip:u@carrier.example" }', "'sip:u@carrier.example' has a user part, which belongs into aor"),
        ('{ proxy: "sip:10.0.0.1;transport=tls" }', "realms.core has no tls listener to register by"),
        ('{ contact_user: "a b" }', "'a b' is not the user part of a SIP URI"),
        ("yes please", "should be a mapping of keys, not 'yes please'"),
    ],
)
def test_a_trunk_that_cannot_be(what: str, fault: str) -> None:
    (found,) = faults(TRUNK.replace("WHAT", what))
    assert found.partition(": ")[2].partition(": ")[2] == fault


def test_a_trunk_without_anybody_to_be() -> None:
    text = TRUNK.replace("WHAT", "true").replace("auth: { username: u, password: p }, ", "")
    assert [fault.partition(": ")[2] for fault in faults(text)] == [
        "peers.core-a.register: name the aor, as peers.core-a has no auth to take the user from"
    ]
    text = re.sub(r", gateway: \S+", "", TRUNK.replace("WHAT", "true"))
    assert "peers.core-a.register: name the registrar, as peers.core-a has no gateway to take it from" in [
        fault.partition(": ")[2] for fault in faults(text)
    ]


def test_tls_takes_files_that_fit(tmp_path: Path) -> None:
    """Each fault names its key; nothing is said about what cannot be looked at."""
    base = """\
realms:
  core:
    listen: [tls:127.0.0.1:5061]
    media: { address: 127.0.0.1 }
"""
    assert faults(base) == ["3:14: realms.core.listen.0: tls takes realms.core.tls with certificate and key"]
    (tmp_path / "a.pem").write_text("no PEM")
    text = base + f"    tls: {{ certificate: {tmp_path}/a.pem, key: {tmp_path}/b.pem, verify: peer }}\n"
    found = [fault.partition(" ")[2] for fault in faults(text)]
    assert found == [
        f"realms.core.tls.key: cannot read {tmp_path}/b.pem: no such file or directory",
        "realms.core.tls.verify: peer takes ca: the authorities whose clients may connect",
    ]
    (tmp_path / "b.pem").write_text("no PEM")
    text = text.replace(", verify: peer", "")
    found = [fault.partition(" ")[2] for fault in faults(text)]
    assert found == [f"realms.core.tls.certificate: {tmp_path}/a.pem and {tmp_path}/b.pem do not fit: no PEM"]


def test_further_certificates_have_names_of_their_own(tmp_path: Path) -> None:
    """Their faults are told where they are, and relative paths are those of the file's folder."""
    (tmp_path / "a.pem").write_text("no PEM")
    base = f"""\
realms:
  core:
    listen: [tls:127.0.0.1:5061]
    media: {{ address: 127.0.0.1 }}
    tls:
      certificate: {tmp_path}/a.pem
      key: {tmp_path}/a.pem
      by_name:
        - {{ names: [a.example, "*.b.example"], certificate: {tmp_path}/a.pem, key: {tmp_path}/x.pem }}
        - {{ names: [B.example, "*.b.example"], certificate: {tmp_path}/y.pem, key: {tmp_path}/a.pem }}
"""
    by_name = "realms.core.tls.by_name"
    assert [fault.partition(" ")[2] for fault in faults(base)] == [
        f"realms.core.tls.certificate: {tmp_path}/a.pem and {tmp_path}/a.pem do not fit: no PEM",
        f"{by_name}.0.key: cannot read {tmp_path}/x.pem: no such file or directory",
        f"{by_name}.1.names: *.b.example is a name of realms.core.tls.by_name.0 too",
        f"{by_name}.1.certificate: cannot read {tmp_path}/y.pem: no such file or directory",
    ]
    assert faults(base.replace("a.example", "a example"))[0].partition(" ")[2] == (
        f"{by_name}.0.names.0: 'a example' is not a host name, for example sip.example.com or *.example.com"
    )
    wrong = faults(base.replace("by_name", "by_names"))
    assert wrong[-1].partition(" ")[2] == "realms.core.tls.by_names: unknown key, did you mean 'by_name'?"


def test_the_media_node_that_we_ship_is_good_and_its_realms_are_those_of_a_supervisor() -> None:
    node = loader.load_media_node(Path(__file__).parents[3] / "conf" / "media.yaml")
    assert node.address == ("127.0.0.1", 7700)
    assert set(node.realms) == {"core", "outside"}
    assert node.realms["outside"].nat == "auto"


def test_faults_of_a_media_node(tmp_path: Path) -> None:
    file = tmp_path / "media.yaml"
    file.write_text("listen: tcp://127.0.0.1:7700\nrealms:\n  core: { address: 127.0.0.1, port: 1 }\n")
    with pytest.raises(ConfigError) as caught:
        loader.load_media_node(file)
    assert caught.value.faults == [f"{file}:3:31: realms.core.port: unknown key, did you mean 'ports'?"]
    with pytest.raises(ConfigError, match="cannot read the file: no such file or directory"):
        loader.load_media_node(tmp_path / "none.yaml")
    file.write_text("")
    with pytest.raises(ConfigError, match="the file is empty"):
        loader.load_media_node(file)


def test_a_browser_is_not_called_without_a_relay() -> None:
    direct = GOOD.replace("calls_to: core-a", "calls_to: core-a, profile: direct")
    assert faults(direct) == []
    assert faults(direct.replace("realm: core,", "realm: core, profile: webrtc,")) == [
        "10:87: peers.carrier-a.profile: 'direct' relays no media, but peers.core-a has 'webrtc' and needs it"
    ]
