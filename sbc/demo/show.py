"""Prints the demonstration: the ladder of both legs, the audio, the CDR."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from sbc.demo.phone import Traced
    from sbc.demo.run import Outcome

ARROW = 26  # columns between two lifelines


def ladder(trace: list[Traced]) -> list[str]:
    """The messages of both legs as text lines, time running down: alice, the SBC, bob."""
    lines = [f"{'':9}{'alice':<{ARROW + 1}}{'sbc':^5}{'bob':>{ARROW + 1}}"]
    start = trace[0].at if trace else 0.0
    for message in sorted(trace, key=lambda m: m.at):
        label = f" {message.summary} "
        # Alice stands left of the SBC, Bob right of it: what Alice sends and what Bob receives both run to the right.
        rightwards = message.sent == (message.phone == "alice")
        arrow = label.center(ARROW - 1, "-")
        arrow = f"{arrow}>" if rightwards else f"<{arrow}"
        blank = " " * ARROW
        left, right = (arrow, blank) if message.phone == "alice" else (blank, arrow)
        lines.append(f"{(message.at - start) * 1000:7.1f}  |{left}|{right}|")
    return lines


def show(outcome: Outcome, *, as_json: bool) -> None:
    """Print an outcome, as tables or as one JSON object."""
    console = Console(highlight=False)
    if as_json:
        first = outcome.ladder[0].at if outcome.ladder else 0.0
        document = {
            "ok": outcome.good,
            "error": outcome.error,
            "ladder": [
                {"ms": round((m.at - first) * 1000, 1), "phone": m.phone, "sent": m.sent, "message": m.summary}
                for m in outcome.ladder
            ],
            "audio": outcome.audio,
            "cdr": outcome.cdr,
        }
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    if outcome.ladder:
        console.print("[bold]SIP, both legs[/bold] (ms)")
        for line in ladder(outcome.ladder):
            console.print(line, markup=False, soft_wrap=True)
    if outcome.audio:
        table = Table(title="Audio", title_justify="left", box=box.SIMPLE_HEAD)
        for column in ("direction", "sent", "received", "lost", "altered", "jitter ms", "MOS"):
            table.add_column(column, justify="left" if column == "direction" else "right")
        for d in outcome.audio:
            row = (d.sent, d.received, d.lost, d.altered, f"{d.jitter_ms:.2f}", f"{d.mos:.2f}")
            table.add_row(d.name, *map(str, row))
        console.print(table)
    if outcome.cdr is not None:
        table = Table(title="CDR", title_justify="left", box=box.SIMPLE_HEAD, show_header=False)
        for key, value in outcome.cdr.items():
            if value not in ("", None, [], {}):
                text = value if isinstance(value, str) else orjson.dumps(value).decode()
                table.add_row(key, text)
        console.print(table)
    if outcome.error:
        console.print("[bold red]The call failed.[/bold red]")
        console.print(outcome.error, markup=False, soft_wrap=True)
    elif outcome.good:
        console.print("[bold green]The call went through: audio arrived unchanged both ways.[/bold green]")
    else:
        console.print("[bold red]Audio did not arrive unchanged both ways.[/bold red]")
