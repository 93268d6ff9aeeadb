"""Parameters and addresses of a script as a configuration."""

from __future__ import annotations

from pathlib import Path

from sbc.config.loader import check, check_text
from sbc.config.models import Config
from sbc.importer.opensips import Imported, import_opensips
from sbc.importer.report import Outcome


def made(text: str) -> Imported:
    return import_opensips(text, "x.cfg")


def config(text: str) -> Config:
    loaded, faults = check_text(made(text).config.replace("routes: routes.py\n", ""), "x.yaml")
    assert loaded is not None, faults
    return loaded


def test_listen_lines_of_one_network_are_one_realm() -> None:
    loaded = config(
        "listen=udp:10.0.0.1:5060\nlisten = tcp:10.0.0.1:5060\nsocket=udp:10.0.0.2:5062\n"
        "listen=udp:192.0.2.1:5060 as 203.0.113.5:5070\n"
    )
    assert {
        name: [f"{one.transport}:{one.host}:{one.port}" for one in it.listen] for name, it in loaded.realms.items()
    } == {
        "net-10-0-0-1": ["udp:10.0.0.1:5060", "tcp:10.0.0.1:5060", "udp:10.0.0.2:5062"],
        "net-192-0-2-1": ["udp:192.0.2.1:5060"],
    }
    outside = loaded.realms["net-192-0-2-1"]
    assert outside.advertised(outside.listen[0]) == ("203.0.113.5", 5070)
    assert str(outside.media.advertise) == "203.0.113.5"


def test_what_is_advertised_for_all_is_said_by_the_realm() -> None:
    loaded = config('advertised_address="203.0.113.5"\nport=5080\nlisten=udp:10.0.0.1\n')
    [realm] = loaded.realms.values()
    assert realm.advertised(realm.listen[0]) == ("203.0.113.5", 5080)


def test_sources_and_destinations_are_peers_in_the_realm_that_they_are_near() -> None:
    text = """listen=udp:10.10.11.5:5060
listen=udp:10.0.0.5:5060 as 204.1.7.4
route {
    if (src_ip == 10.10.11.12 || src_ip == 10.10.11.13) { $du = "sip:198.51.100.7:5070;transport=udp"; }
    else if (src_ip == 198.51.100.0/28) { $du = "sip:10.10.11.12"; }
    t_relay();
}"""
    peers = config(text).peers
    assert {name: (it.realm, [str(one) for one in it.addresses], it.gateway) for name, it in peers.items()} == {
        "10-10-11-12-10-10-11-12": ("net-10-10-11-5", ["10.10.11.12/32"], "sip:10.10.11.12"),
        "10-10-11-12": ("net-10-10-11-5", ["10.10.11.13/32"], ""),
        "198-51-100-0-28": ("net-10-0-0-5", ["198.51.100.0/28"], ""),
        "to-198-51-100-7": ("net-10-0-0-5", ["198.51.100.7/32"], "sip:198.51.100.7:5070"),
    }
    assert peers["10-10-11-12"].direction == peers["10-10-11-12-10-10-11-12"].direction == "from_10_10_11_12"
    report = made(text).report
    assert report.complete
    assert {item.line for item in report.of(Outcome.ASSUMED)} >= {4, 5}


def test_parameters_that_have_a_counterpart_are_taken_over() -> None:
    loaded = config(
        'log_level=4\nserver_header="Server: Example 1"\n'
        'modparam("tm", "fr_inv_timeout", 45)\nlisten=udp:10.0.0.1:5060\n'
    )
    assert loaded.log.level == "debug"
    assert loaded.timers.invite_timeout_s == 45
    assert loaded.realms["net-10-0-0-1"].user_agent == "Example 1"


def test_media_ports_keep_clear_of_the_sip_ports() -> None:
    assert config("listen=udp:10.0.0.1:35060\n").realms["net-10-0-0-1"].media.ports == (40000, 49999)


def test_what_no_realm_can_have_is_listed() -> None:
    report = made(
        "listen=udp:eth0:5060\nlisten=udp:*:5060\nlisten=sctp:10.0.0.1:5060\nlisten=tls:10.0.0.1:5061\n"
        "alias=a.example\nfork=no\nmhomed=1\nnonsense=1\n"
        'loadmodule "dispatcher.so"\nloadmodule "tm.so"\nimport_file "x.cfg"\nroute { exit; }'
    ).report
    assert [item.line for item in report.of(Outcome.UNMAPPED)] == [1, 1, 2, 3, 4, 5, 6, 8, 9, 11]
    assert [item.line for item in report.of(Outcome.ITSELF)] == [7, 10]


def test_a_destination_by_name_is_left_to_the_operator() -> None:
    made_ = made('listen=udp:10.0.0.1:5060\nroute {\n$du = "sip:sip.carrier.example";\nt_relay();\n}')
    [item] = made_.report.of(Outcome.UNMAPPED)
    assert item.line == 3
    assert "gateway: sip:sip.carrier.example" in item.reason
    assert check_text(made_.config.replace("routes: routes.py\n", ""), "x.yaml")[1] == []


def test_the_files_are_good_together(tmp_path: Path) -> None:
    made_ = made("listen=udp:10.0.0.1:5060\nroute { exit; }")
    (tmp_path / "sbc.yaml").write_text(made_.config)
    (tmp_path / "routes.py").write_text(made_.routes)
    assert check(tmp_path / "sbc.yaml")[1] == []
