"""When the node's own certificates end: in the log from two weeks before, in ``sbc status``, and as a metric.

One that has ended goes on being shown to those who connect; that they refuse it is for them to say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sbc.config.models import Config

DAY_S: Final = 86_400.0
SOON_S: Final = 14 * DAY_S
LOOK_S: Final = 3600.0
Note = Callable[..., None]  # level, event, fields


@dataclass(frozen=True, slots=True)
class Certificate:
    """One of a realm; times in seconds since 1970."""

    realm: str
    file: str
    begins: float
    ends: float

    def state(self, now: float) -> str:
        """Empty where nothing is wrong with it, else a sentence."""
        if now < self.begins:
            return f"the certificate {self.file} is not valid before {_day(self.begins)}"
        if now >= self.ends:
            return f"the certificate {self.file} ended on {_day(self.ends)}; who connects will refuse it"
        if self.ends - now < SOON_S:
            days = int((self.ends - now) // DAY_S)
            return f"the certificate {self.file} ends in {days} day{'s' * (days != 1)}, on {_day(self.ends)}"
        return ""


def certificates_of(config: Config) -> list[Certificate]:
    """Those that serve with ``config``, each once in a realm; one that cannot be read any more is left out."""
    from cryptography import x509

    found: dict[tuple[str, str], Certificate] = {}
    for name, realm in config.realms.items():
        if realm.tls is None:
            continue
        for file in (realm.tls.certificate, *(one.certificate for one in realm.tls.by_name)):
            try:
                with open(file, "rb") as pem:
                    read = x509.load_pem_x509_certificates(pem.read())[0]  # the first is the server's own (RFC 8446)
            except (OSError, ValueError):
                continue
            begins, ends = (at.timestamp() for at in (read.not_valid_before_utc, read.not_valid_after_utc))
            found[name, file] = Certificate(name, file, begins, ends)
    return list(found.values())


class Certificates(Collector):
    """``take`` is told what serves, ``look`` is called now and then."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._held: list[Certificate] = []
        self._look_at = 0.0
        self._told: dict[Certificate, float] = {}  # when

    def take(self, config: Config) -> None:
        """These serve from now on."""
        self._held = certificates_of(config)
        self._told = {one: at for one, at in self._told.items() if one in self._held}
        self._look_at = 0.0

    def look(self, now: float) -> None:
        """Log what is wrong, each once a day. ``now``: seconds since 1970."""
        if now < self._look_at <= now + LOOK_S:
            return
        self._look_at = now + LOOK_S
        for one in self._held:
            if (state := one.state(now)) and not now - self._told.get(one, -DAY_S) < DAY_S:
                self._told[one] = now
                self._note("error" if now >= one.ends else "warning", "certificate", realm=one.realm, reason=state)

    def rows(self, now: float) -> list[dict[str, Any]]:  # Any: JSON values
        """For ``status``."""
        return [
            {"realm": one.realm, "file": one.file, "ends": _day(one.ends), "state": one.state(now) or "valid"}
            for one in self._held
        ]

    def collect(self) -> Iterator[Metric]:
        """Seconds that are left, by realm and file; negative after the end."""
        if self._held:
            family = GaugeMetricFamily(
                "sbc_certificate_expires_seconds", "Until the certificate ends.", labels=("realm", "file")
            )
            now = time.time()
            for one in self._held:
                family.add_metric((one.realm, one.file), one.ends - now)
            yield family


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
