"""Voice quality of the calls that have ended, as Prometheus histograms: from their CDRs, by realm.

Labels are bounded: realms of the configuration, and whether a figure is of what a leg sent as we ``received`` it, or of
what we sent as the leg ``reported`` it. Counts begin with the control process; without a store there are no CDRs to
read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

MOS = (1.5, 2.0, 2.5, 3.0, 3.3, 3.6, 3.8, 4.0, 4.1, 4.2, 4.3, 4.4)
LOSS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
RTT_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6, 1.0, 2.0)
_FAMILIES = {
    "mos": ("sbc_call_mos", "MOS of ended calls, on average over each leg's seconds.", MOS),
    "loss": ("sbc_call_loss_ratio", "Share of packets lost in ended calls, by leg.", LOSS),
    "rtt": ("sbc_call_rtt_seconds", "Round trip between us and the legs of ended calls, on average.", RTT_S),
}
_LABELS = ("realm", "direction")


class _Histogram:
    """Counts of one set of labels."""

    __slots__ = ("counts", "limits", "total")

    def __init__(self, limits: tuple[float, ...]) -> None:
        self.limits = limits
        self.counts = [0] * (len(limits) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.limits, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        found, so_far = [], 0
        for limit, count in zip((*map(str, self.limits), "+Inf"), self.counts, strict=True):
            so_far += count
            found.append((limit, float(so_far)))
        return found


class QualityCollector(Collector):
    """``observe`` takes each CDR; another thread may collect meanwhile."""

    def __init__(self, realms: Iterable[str]) -> None:
        self._realms = frozenset(realms)
        self._found: dict[tuple[str, str, str], _Histogram] = {}
        self._one_way: dict[str, int] = {}

    def observe(self, cdr: Mapping[str, Any]) -> None:  # Any: JSON values, see sbc.b2bua.cdr
        """Count one ended call. What does not have the shape of our own CDRs is passed over."""
        media = cdr.get("media")
        for side in ("a", "b"):
            realm = cdr.get(f"{side}_realm")
            if realm not in self._realms:
                continue
            if side in str(cdr.get("one_way", "")):
                self._one_way[realm] = self._one_way.get(realm, 0) + 1
            told = media.get(side) if isinstance(media, dict) else None
            if not isinstance(told, dict):
                continue
            for direction in ("received", "reported"):
                judged = told.get(direction)
                if isinstance(judged, dict):
                    self._add("mos", realm, direction, judged.get("mos"))
                    self._add("loss", realm, direction, judged.get("loss"))
            trips = told.get("rtt_ms")
            if isinstance(trips, dict) and isinstance(trips.get("avg"), int | float):
                self._add("rtt", realm, "", trips["avg"] / 1000)

    def _add(self, name: str, realm: str, direction: str, value: Any) -> None:  # Any: a JSON value
        if not isinstance(value, int | float):
            return
        histogram = self._found.get((name, realm, direction))
        if histogram is None:
            histogram = self._found[name, realm, direction] = _Histogram(_FAMILIES[name][2])
        histogram.add(value)

    def collect(self) -> Iterator[Metric]:
        """Families without a call are left out."""
        for name, (family_name, text, _) in _FAMILIES.items():
            labels = _LABELS if name != "rtt" else _LABELS[:1]
            family = HistogramMetricFamily(family_name, text, labels=labels)
            for (found, realm, direction), histogram in list(self._found.items()):
                if found == name:
                    values = (realm, direction)[: len(labels)]
                    family.add_metric(values, buckets=histogram.buckets(), sum_value=histogram.total)
            if family.samples:
                yield family
        if self._one_way:
            text = "Ended calls in which the side in this realm sent nothing for a time while the other one did."
            counter = CounterMetricFamily("sbc_call_one_way", text, labels=("realm",))
            for realm, count in list(self._one_way.items()):
                counter.add_metric((realm,), count)
            yield counter
