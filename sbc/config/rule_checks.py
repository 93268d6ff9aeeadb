"""Whether realms and peers name lists of rules that there are, and use them where they can be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from sbc.config.header_rules import RuleLists
from sbc.config.source import Path, Source

if TYPE_CHECKING:
    from sbc.config.models import Config


def check(config: Config, read: Source) -> None:
    """Add the faults to ``read``; rules learn where they stand."""
    for name, rules in config.header_rules.items():
        for index, rule in enumerate(rules):
            rule._place = read.place(("header_rules", name, index))
    used: set[str] = set()
    for path, lists in _users(config):
        for key, names in (("in", lists.inbound), ("out", lists.outbound)):
            for index, name in enumerate(names):
                used.add(name)
                at: Path = (*path, "header_rules", key, index)
                at = at if read.has(at) else at[:-1]
                if name not in config.header_rules:
                    read.fault(at, f"no header_rules are called '{name}'{close_to(name, config.header_rules)}")
                elif key == "out":
                    for rule in config.header_rules[name]:
                        if rule.only_in:
                            said = f"{name} has a rule with {rule.only_in} ({rule.place}), which is for messages"
                            read.fault(at, f"{said} that come in: name it under 'in'")
                            break
    for name in config.header_rules:
        if name not in used:
            read.fault(("header_rules", name), "no realm or peer names these rules", key=True)
    _plans(config, read)
    _reply_codes(config, read)


def _plans(config: Config, read: Source) -> None:
    named = [(("realms", name), realm.number_plan) for name, realm in config.realms.items()]
    named += [(("peers", name), peer.number_plan) for name, peer in config.peers.items()]
    for path, plan in named:
        if plan and plan not in config.number_plans:
            known = close_to(plan, config.number_plans)
            read.fault((*path, "number_plan"), f"no number_plans are called '{plan}'{known}")
    for plan in config.number_plans:
        if all(plan != name for _, name in named):
            read.fault(("number_plans", plan), "no realm or peer names this plan", key=True)


def _reply_codes(config: Config, read: Source) -> None:
    named = [(("realms", name), realm.reply_codes) for name, realm in config.realms.items()]
    named += [(("peers", name), peer.reply_codes) for name, peer in config.peers.items()]
    used: set[str] = set()
    for path, tables in named:
        for key, table in (("in", tables.inbound), ("out", tables.outbound)):
            used.add(table)
            if table and table not in config.reply_codes:
                known = close_to(table, config.reply_codes)
                read.fault((*path, "reply_codes", key), f"no reply_codes are called '{table}'{known}")
    for table in config.reply_codes:
        if table not in used:
            read.fault(("reply_codes", table), "no realm or peer names this table", key=True)


def _users(config: Config) -> Iterator[tuple[Path, RuleLists]]:
    for name, realm in config.realms.items():
        yield ("realms", name), realm.header_rules
    for name, peer in config.peers.items():
        yield ("peers", name), peer.header_rules


def close_to(word: str, known: Iterable[str]) -> str:
    """`` did you mean 'x'?``, or what there is."""
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f", did you mean '{close[0]}'?"
    return f"; there is {', '.join(names)}" if 0 < len(names) <= 8 else ""
