"""``python -m bench``: measure, print one table, keep the numbers under ``bench/out``."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from bench import machine
from bench.figures import Figure, NotMeasuredError, Samples, table
from bench.lock import alone
from bench.plan import Plan

# Each has measure(plan) -> list[Samples]; the order of the report.
FAMILIES = ("calls", "relay", "control", "memory", "limits", "routes")
OUT = Path(__file__).parent / "out"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description="The SBC beside its peers, in one run, on one core.")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATTERN",
        help="a glob or the beginning of names, e.g. 'call.full', '*.cpu_ms', 'relay'; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print a list of {name, value, unit, runs, spread, note}")
    parser.add_argument("--runs", type=int, default=0, metavar="N", help="how often to repeat (5; with --quick 1)")
    parser.add_argument("--quick", action="store_true", help="one short run of each: an impression, not a measurement")
    parser.add_argument(
        "--although-busy",
        action="store_true",
        help="take figures while other processes use the cores too; the notes then say how much",
    )
    parser.add_argument(
        "--minutes", type=float, default=30.0, metavar="N", help="how long 'soak' lasts, which must be asked for (30)"
    )
    arguments = parser.parse_args()
    if arguments.runs < 0:
        parser.error("--runs must be positive")
    return arguments


def _end(number: int, frame: object) -> NoReturn:
    """SIGTERM ends the bench as Ctrl-C does, by way of everything that has to be ended with it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("bench: ended by SIGTERM", file=sys.stderr)
    sys.exit(128 + number)


def main() -> int:
    """0 when at least one figure could be taken."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _end)
    try:
        with alone():
            return _measure(arguments, machine.pick_cores())
    except NotMeasuredError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130


def _measure(arguments: argparse.Namespace, cores: machine.Cores) -> int:
    runs = arguments.runs or (1 if arguments.quick else 5)
    plan = Plan(cores, runs, arguments.quick, arguments.although_busy, arguments.only, arguments.minutes)
    samples: list[Samples] = []
    for family in FAMILIES:
        samples += importlib.import_module(f"bench.{family}").measure(plan)
    figures = [Figure.of(sample) for sample in samples]
    records = [dataclasses.asdict(figure) for figure in figures]
    _keep(records, samples)
    print(json.dumps(records, indent=2) if arguments.json else table(figures))
    return 0 if any(figure.value is not None for figure in figures) else 1


def _keep(records: list[dict[str, object]], samples: list[Samples]) -> None:
    """Store the run with its machine and every single value."""
    OUT.mkdir(exist_ok=True)
    report = {
        "machine": machine.describe(),
        "figures": records,
        "values": {sample.name: sample.values for sample in samples},
    }
    path = OUT / time.strftime("%Y%m%d-%H%M%S.json", time.gmtime())
    path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
