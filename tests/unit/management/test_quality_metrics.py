"""Histograms of voice quality from CDRs."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from sbc.management.quality_metrics import QualityCollector


def exposition(collector: QualityCollector) -> dict[str, float]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def cdr(mos: float, *, one_way: str = "", realm: str = "outside", rtt_ms: float | None = 30.0) -> dict[str, Any]:
    # Any: JSON values
    side: dict[str, Any] = {"packets": 100, "received": {"mos": mos, "loss": 0.01}}  # Any: JSON values
    if rtt_ms is not None:
        side["rtt_ms"] = {"min": 1.0, "avg": rtt_ms, "max": 90.0}
        side["reported"] = {"mos": 4.4, "loss": 0.0}
    return {"a_realm": "core", "b_realm": realm, "one_way": one_way, "media": {"a": {"packets": 0}, "b": side}}


def test_nothing_is_shown_before_the_first_call() -> None:
    assert exposition(QualityCollector(["core"])) == {}


def test_calls_are_counted_by_realm_and_direction() -> None:
    collector = QualityCollector(["core", "outside"])
    for mos in (4.4, 3.5, 3.6):
        collector.observe(cdr(mos))
    collector.observe(cdr(2.0, rtt_ms=None, one_way="b"))
    found = exposition(collector)
    labels = '{direction="received",realm="outside"}'
    assert found[f"sbc_call_mos_count{labels}"] == 4
    assert found[f"sbc_call_mos_sum{labels}"] == 4.4 + 3.5 + 3.6 + 2.0
    assert found['sbc_call_mos_bucket{direction="received",le="3.6",realm="outside"}'] == 3
    assert found['sbc_call_mos_bucket{direction="received",le="3.3",realm="outside"}'] == 1
    assert found['sbc_call_mos_count{direction="reported",realm="outside"}'] == 3
    assert found['sbc_call_loss_ratio_bucket{direction="received",le="0.005",realm="outside"}'] == 0
    assert found['sbc_call_loss_ratio_bucket{direction="received",le="0.01",realm="outside"}'] == 4
    assert found['sbc_call_rtt_seconds_bucket{le="0.05",realm="outside"}'] == 3
    assert found['sbc_call_one_way_total{realm="outside"}'] == 1
    assert not any('realm="core"' in name for name in found)


def test_labels_come_from_the_configuration_alone_and_odd_records_are_passed_over() -> None:
    collector = QualityCollector(["core"])
    collector.observe(cdr(4.0, realm="made-up"))
    shapes: tuple[object, ...] = (
        None,
        [],
        {"a": 5},
        {"a": {"received": 5, "rtt_ms": {"avg": "x"}}},
        {"a": {"received": {"mos": None}}},
    )
    for media in shapes:
        collector.observe({"a_realm": "core", "media": media, "one_way": None})
    collector.observe({"a_realm": ["core"]} | {"a_realm": "core"})
    assert exposition(collector) == {}
