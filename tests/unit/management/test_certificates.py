"""What is said of certificates before they end, and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sbc.config.models import Config
from sbc.management.certificates import DAY_S, LOOK_S, Certificate, Certificates, certificates_of
from tests.support.certificates import Authority

CONFIG = Config.model_validate(
    {"realms": {"outside": {"listen": ["udp:127.0.0.1:5060"], "media": {"address": "127.0.0.1"}}}}
)
HELD = Certificate("outside", "a.pem", begins=10 * DAY_S, ends=100 * DAY_S)


@pytest.mark.parametrize(
    ("day", "says"),
    [
        (9.5, "the certificate a.pem is not valid before 1970-01-11"),
        (10, ""),
        (85.9, ""),
        (86.5, "the certificate a.pem ends in 13 days, on 1970-04-11"),
        (98.5, "the certificate a.pem ends in 1 day, on 1970-04-11"),
        (99.5, "the certificate a.pem ends in 0 days, on 1970-04-11"),
        (100, "the certificate a.pem ended on 1970-04-11; who connects will refuse it"),
    ],
)
def test_states(day: float, says: str) -> None:
    assert HELD.state(day * DAY_S) == says


def test_each_is_said_once_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, float]] = []
    now = 84.0 * DAY_S

    def note(level: str, event: str, **fields: Any) -> None:  # Any: log fields are free
        assert (event, fields["realm"]) == ("certificate", "outside")
        said.append((level, now / DAY_S))

    monkeypatch.setattr("sbc.management.certificates.certificates_of", lambda _: [HELD])
    certificates = Certificates(note)
    certificates.take(CONFIG)
    while now < 102 * DAY_S:
        certificates.look(now)
        now += LOOK_S / 2
    levels = [level for level, _ in said]
    assert levels == ["warning"] * 14 + ["error"] * 2
    certificates.take(CONFIG)  # a reload that changes nothing about it says nothing about it
    certificates.look(now)
    assert len(said) == 16
    certificates.take(CONFIG)
    certificates.look(now + 1)
    assert len(said) == 16
    (row,) = certificates.rows(90 * DAY_S)
    assert row["ends"] == "1970-04-11"
    (family,) = certificates.collect()
    assert family.samples[0].labels == {"realm": "outside", "file": "a.pem"}
    assert family.samples[0].value < 0


@pytest.mark.peer("openssl")
def test_those_of_the_configuration_are_read(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    pair, other = authority.sign("a", "DNS:a.example", days=7), authority.sign("b", "DNS:b.example", expired=True)
    by_name = [{"names": ["b.example"], "certificate": str(other.certificate), "key": str(other.key)}]
    tls = {"certificate": str(pair.certificate), "key": str(pair.key), "by_name": by_name}
    config = Config.model_validate(
        {"realms": {"outside": {"listen": ["tls:127.0.0.1:5061"], "media": {"address": "127.0.0.1"}, "tls": tls}}}
    )
    first, second = certificates_of(config)
    assert [Path(one.file).name for one in (first, second)] == ["a.pem", "b.pem"]
    assert first.ends - first.begins == pytest.approx(7 * DAY_S, abs=60)
    assert second.ends < second.begins + 1 or second.ends - second.begins < 0
    other.certificate.unlink()
    assert certificates_of(config) == [first]
