"""Prometheus metrics from the pages of all processes; no process spends anything on them until they are asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from media.counters import GAUGES as MEDIA_GAUGES
from media.counters import MediaCounter
from sbc.errors import ConfigError
from sbc.telemetry.counters import GAUGES, WORD_KIND, WORD_MAGIC, Counter, Kind
from sbc.telemetry.page import Page

HUNG_AFTER_S = 3.0
Families = dict[str, Metric]  # by name, in the order of their first appearance
_LABELS = ("process", "slot")
_TICKS_HZ = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")

# Families with a label "reason": where a name begins or ends like this, the rest of it is the reason.
_REFUSED = (
    *("MAX_CALLS", "MAX_CPS", "DRAINING", "OVERLOAD", "METHOD", "EXTENSION", "MAX_FORWARDS", "LOOP", "CSEQ"),
    *("WRONG_SOURCE", "GLARE", "SDP", "MALFORMED", "UNKNOWN_SOURCE"),
)
_REASONS: dict[str, tuple[str, str, str]] = {
    **{f"{name}_REFUSED": ("sbc_refused", "SIP requests refused.", name.lower()) for name in _REFUSED},
    "UNKNOWN_SOURCE_DROPPED": ("sbc_dropped", "SIP datagrams dropped.", "unknown_source"),
    "MALFORMED_DROPPED": ("sbc_dropped", "SIP datagrams dropped.", "malformed"),
}


def split_name(name: str) -> tuple[str, str]:
    """A page's name as labels: ``sip 0`` is ("sip", "0"), ``control`` is ("control", "")."""
    process, _, slot = name.partition(" ")
    return process, slot


class PageCollector(Collector):
    """Reads every page when scraped."""

    def __init__(self, pages: Mapping[str, Page], node: str, version: str) -> None:
        self._pages = pages
        self._node = node
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """One family per counter; labels ``process``, ``slot`` and, for drops and refusals, ``reason``."""
        info = GaugeMetricFamily("sbc_build_info", "Always 1.", labels=("node", "version"))
        info.add_metric((self._node, self._version), 1)
        yield info
        families: Families = {}
        for page_name, page in self._pages.items():
            if page.is_spare and not page.words[WORD_MAGIC]:  # nobody was ever there
                continue
            labels = split_name(page_name)
            kind = page.words[WORD_KIND]
            self._process(families, page, labels)
            if kind == Kind.MEDIA:
                for member in MediaCounter:
                    _add_media(families, member, page.words[member], labels)
            elif kind:
                for counter in Counter:
                    _add(families, counter, page.words[counter], labels)
        yield from families.values()

    def _process(self, families: Families, page: Page, labels: tuple[str, str]) -> None:
        age_s = (time.monotonic_ns() - page.beat_ns) / 1e9 if page.beat_ns else float("inf")
        up = page.pid > 0 and age_s < HUNG_AFTER_S
        _gauge(families, "sbc_process_up", "1 while the process gives signs of life.", _LABELS, labels, float(up))
        text = "Whether the process serves."
        _gauge(families, "sbc_process_ready", text, _LABELS, labels, float(up and page.is_ready))
        text = "When the process began, in seconds since 1970."
        _gauge(families, "sbc_process_start_time_seconds", text, _LABELS, labels, page.start_s)
        text = "Times that a successor took the process's place."
        _counter(families, "sbc_process_restarts", text, _LABELS, labels, page.restarts)
        usage = process_usage(page.pid) if up else None
        if usage is not None:
            text = "User and system time of the present process."
            _counter(families, "sbc_process_cpu_seconds", text, _LABELS, labels, usage[0])
            text = "Resident memory of the process."
            _gauge(families, "sbc_process_resident_memory_bytes", text, _LABELS, labels, usage[1])


class RegistrationCollector(Collector):
    """Asks every SIP worker for its registrations when scraped, and nobody where there is none.

    ``ask`` gives the descriptions of :class:`sbc.services.trunk_registration.Registrations`, from a thread.
    """

    def __init__(self, pages: Mapping[str, Page], ask: Callable[[], list[dict[str, Any]]]) -> None:  # Any: JSON values
        self._pages = pages
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        """Label ``peer``."""
        if not any(
            page.get(Counter.REGISTRATIONS) for page in self._pages.values() if page.words[WORD_KIND] == Kind.SIP
        ):
            return
        up = GaugeMetricFamily("sbc_registration_up", "1 while we are registered at the peer.", labels=("peer",))
        left = GaugeMetricFamily(
            "sbc_registration_expires_seconds", "Until the registration at the peer expires.", labels=("peer",)
        )
        for row in self._ask():
            up.add_metric((row["peer"],), float(row["registered"]))
            left.add_metric((row["peer"],), row["expires_s"] or 0.0)
        yield up
        yield left


class MediaNodeCollector(Collector):
    """Asks every SIP worker how it sees the media nodes; ``ask`` gives rows of the method ``media``, from a thread."""

    def __init__(self, ask: Callable[[], list[dict[str, Any]]]) -> None:  # Any: JSON values
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        """Labels ``slot`` of the SIP worker, ``node``, and for the state why the node gets no new calls."""
        up = GaugeMetricFamily(
            "sbc_media_node_up",
            "1 while the media node gets new calls of this SIP worker.",
            labels=("slot", "node", "state", "reason"),
        )
        sessions = GaugeMetricFamily(
            "sbc_media_node_sessions", "Sessions of the media node when it was last probed.", labels=("slot", "node")
        )
        for row in self._ask():
            slot = split_name(row["worker"])[1]
            why = "" if row["state"] == "up" else row["why"]
            up.add_metric((slot, row["node"], row["state"], why), float(row["state"] == "up"))
            sessions.add_metric((slot, row["node"]), row["sessions"])
        yield up
        yield sessions


def process_usage(pid: int) -> tuple[float, int] | None:
    """(CPU seconds, resident octets) of a process, None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS_HZ, int(fields[21]) * _PAGE_BYTES


def _add(families: Families, counter: Counter, value: int, labels: tuple[str, str]) -> None:
    name = counter.name
    if (family := _REASONS.get(name)) is not None:
        _counter(families, family[0], family[1], (*_LABELS, "reason"), (*labels, family[2]), value)
    elif counter in GAUGES:
        _gauge(families, f"sbc_{name.lower()}", counter.text, _LABELS, labels, value)
    else:
        _counter(families, f"sbc_{name.lower()}", counter.text, _LABELS, labels, value)


def _add_media(families: Families, member: MediaCounter, value: int, labels: tuple[str, str]) -> None:
    name = member.name.lower()
    text = name.replace("_", " ").capitalize() + "."
    if name.startswith("drop_"):
        text = "Media packets that were not forwarded."
        _counter(families, "sbc_media_dropped", text, (*_LABELS, "reason"), (*labels, name[5:]), value)
    elif name.startswith("refused_"):
        text = "Media requests that the media worker refused."
        _counter(families, "sbc_media_worker_refused", text, (*_LABELS, "reason"), (*labels, name[8:]), value)
    elif member in MEDIA_GAUGES:
        _gauge(families, f"sbc_media_{name.removeprefix('media_')}", text, _LABELS, labels, value)
    else:
        _counter(families, f"sbc_media_worker_{name.removeprefix('media_')}", text, _LABELS, labels, value)


def _tell(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    families: Families,
    name: str,
    text: str,
    label_names: tuple[str, ...],
    labels: tuple[str, ...],
    value: float,
) -> None:
    family = families.get(name)
    if family is None:
        family = families[name] = kind(name, text, labels=label_names)
    assert isinstance(family, kind)
    family.add_metric(labels, value)


_counter, _gauge = partial(_tell, CounterMetricFamily), partial(_tell, GaugeMetricFamily)


def serve(where: str, *collectors: Collector) -> Callable[[], None]:
    """Serve ``/metrics`` on ``host:port`` from a thread; returns what ends it. OSError when it cannot be bound,
    ConfigError when ``where`` is no address."""
    host, _, port = where.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ConfigError([f"management.metrics: {where!r} is not address:port, for example 127.0.0.1:9090"])
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    server, thread = start_http_server(int(port), host.strip("[]"), registry)

    def stop(server: WSGIServer = server) -> None:
        server.shutdown()
        server.server_close()
        thread.join(2.0)

    return stop
