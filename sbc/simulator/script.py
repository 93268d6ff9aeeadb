"""What the far side of a dry run does, as text.

A script is a number of steps joined by ``+``:

- a status: ``180``, ``503``; ``busy`` is 486. With a Contact after a colon for redirects: ``302:sip:42@198.51.100.9``.
- ``5s``: wait so long.
- ``timeout``: say nothing more.
- ``bye``: hang up (after a 200).

Several scripts, separated by commas, are for one attempt after the other; the last one stays: ``503,180+200``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from sbc.simulator.party import Line, Party
    from sbc.sip.message import Message

DEFAULT: Final = "180+200"
_STEP = re.compile(r"(?:(?P<status>[1-6]\d\d)(?::(?P<contact>sips?:[^\s,+]+))?|(?P<wait>\d+(?:\.\d+)?)s|(?P<word>\w+))")
_WORDS: Final = {"timeout": "silence", "silence": "silence", "bye": "bye", "busy": "486"}


class Action(NamedTuple):
    """One step: an answer with ``status``, or after ``wait_s`` the next one, or ``bye``."""

    status: int = 0
    contact: str = ""
    wait_s: float = 0.0
    bye: bool = False


Script = tuple[Action, ...]


def parse(text: str) -> tuple[Script, ...]:
    """The scripts, one for each attempt. Raises ValueError with a sentence."""
    return tuple([_script(one, text) for one in text.split(",")])


def _script(text: str, whole: str) -> Script:
    actions = []
    for step in text.split("+"):
        match = _STEP.fullmatch(step.strip())
        word = _WORDS.get(match["word"].lower(), "") if match is not None and match["word"] else ""
        if match is None or (match["word"] and not word):
            raise ValueError(
                f"{step.strip()!r} in {whole!r} is no answer: say a status, 5s (wait), timeout, busy or bye, "
                "joined by +, for example 180+200"
            )
        if word == "silence":
            break
        if match["wait"]:
            actions.append(Action(wait_s=float(match["wait"])))
        elif word == "bye":
            actions.append(Action(bye=True))
        else:
            actions.append(Action(int(word or match["status"]), match["contact"] or ""))
    return tuple(actions)


class Scripts:
    """The scripts of all far sides by peer or host, and how far each has come."""

    def __init__(self, answers: Mapping[str, str], default: str = DEFAULT) -> None:
        self._scripts = {name: list(parse(text)) for name, text in answers.items()}
        self._default = parse(default)[0]

    @property
    def names(self) -> frozenset[str]:
        """Who has a script."""
        return frozenset(self._scripts)

    def follow(self, party: Party, line: Line, msg: Message) -> None:
        """A party got a message: what its script says happens, now and later. For ``Party.on_message``."""
        if not msg.is_request or msg.method in ("ACK", "CANCEL", "BYE", "PRACK"):
            return
        if msg.to_tag:
            party.line = line
            party.answers(200)
            return
        scripts = self._scripts.get(party.name)
        script = self._default if not scripts else scripts.pop(0) if len(scripts) > 1 else scripts[0]
        _play(party, line, script)


def _play(party: Party, line: Line, script: Script) -> None:
    request = line.request
    for number, action in enumerate(script):
        if action.wait_s:
            party.stage.at(party.stage.clock.now + action.wait_s, partial(_play, party, line, script[number + 1 :]))
            return
        party.line = line
        if action.bye:
            party.hangs_up()
            return
        if request is None or line.request is not request:
            return  # cancelled meanwhile
        if request.method != "INVITE" and action.status < 200:
            continue
        headers = [("Contact", f"<{action.contact}>")] if action.contact else []
        party.answers(action.status, headers=headers)
        request = line.request
