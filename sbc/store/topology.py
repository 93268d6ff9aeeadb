"""What sentinels and nodes of a cluster say about who is the master, read into one form. No socket, no clock.

Both number their decisions (the configuration epoch of either), so of several that were asked the one with the latest
number is right, and one that was cut off does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sbc.config.store_url import ENOUGH, tag_of
from sbc.store.url import End
from sbc.store.wire import Refusal, Reply, StoreAway

SLOTS = 16_384


class View(NamedTuple):
    """What one of them says: the number of the decision, the master, others to ask, and what is wrong."""

    epoch: int
    master: End
    others: tuple[End, ...] = ()
    doubts: tuple[str, ...] = ()


def sentinel_view(service: str, replies: Sequence[Reply]) -> View:
    """The replies to GET-MASTER-ADDR-BY-NAME, MASTER and REPLICAS. Raises StoreAway where they name no master."""
    address, master, replicas = replies
    _no_refusal(address, master)
    if address is None:
        raise StoreAway(f"it knows no service {service!r}")
    host, port = (_text(part) for part in address)
    fields = _pairs(master)
    sentinels = 1 + int(fields.get("num-other-sentinels", "0"))
    doubts = []
    if "down" in fields.get("flags", ""):
        doubts.append("the sentinels hold the store's master for dead")
    if sentinels < ENOUGH:
        doubts.append(
            f"{'one sentinel watches' if sentinels == 1 else f'{sentinels} sentinels watch'} the store: with fewer"
            f" than {ENOUGH} none is promoted once a machine has died"
        )
    if not isinstance(replicas, Exception) and not any(_is_fit(_pairs(one)) for one in replicas):
        doubts.append("the store has no replica that could take over: what it holds dies with its master")
    return View(int(fields.get("config-epoch", "0")), (host, int(port)), (), tuple(doubts))


def _is_fit(replica: dict[str, str]) -> bool:
    flags = replica.get("flags", "")
    linked = replica.get("master-link-status") == "ok"
    return linked and "down" not in flags and "disconnected" not in flags and replica.get("slave-priority") != "0"


def cluster_view(slot: int, asked: End, by_name: bool, reply: Reply) -> View:
    """The reply to CLUSTER NODES: the owner of ``slot``. Raises StoreAway where nobody serves it.

    ``by_name`` prefers the names that nodes announce to their addresses, for certificates.
    """
    _no_refusal(reply)
    rows = [row.split(" ") for row in _text(reply).splitlines() if row.count(" ") >= 7]
    masters = [row for row in rows if any(_has_slot(text, slot) for text in row[8:])]
    if not masters:
        raise StoreAway(f"no node of the cluster has slot {slot}, in which the keys are")
    owner = max(masters, key=lambda row: int(row[6]))
    flags = owner[2].split(",")
    if "fail" in flags or "noaddr" in flags:
        raise StoreAway(f"the node of slot {slot} has failed, and no replica has taken its place yet")
    replicas = [row for row in rows if row[3] == owner[0] and "fail" not in row[2].split(",")]
    linked = [row for row in replicas if row[7] == "connected"]
    electors = sum("master" in row[2].split(",") and len(row) > 8 for row in rows)
    doubts = []
    if not linked:
        doubts.append("the node of the cluster that has our keys has no replica: what it holds dies with it")
    if electors < ENOUGH:
        doubts.append(f"the cluster has {electors} masters: with fewer than {ENOUGH} no replica is promoted")
    others = (_end(row[1], asked, by_name) for row in (owner, *replicas))
    return View(int(owner[6]), _end(owner[1], asked, by_name), tuple(others), tuple(doubts))


def _has_slot(text: str, slot: int) -> bool:
    """``5461`` or ``0-5460``; what stands in brackets is on its way from or to another node."""
    first, _, last = text.partition("-")
    return first.isdigit() and int(first) <= slot <= int(last or first)


def _end(text: str, asked: End, by_name: bool) -> End:
    """Of ``host:port@bus[,name]``; a node that does not know its own address is where it was asked."""
    place, _, announced = text.partition(",")
    host, _, port = place.partition("@")[0].rpartition(":")
    name = announced.partition(",")[0]
    return (name if by_name and name else host or asked[0]), int(port)


def slot_of(key: str) -> int:
    """The slot of a key: CRC16 (XMODEM) of what stands in the first braces, else of all of it."""
    crc = 0
    for octet in (tag_of(key) or key).encode():
        crc ^= octet << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % SLOTS


def _no_refusal(*replies: Reply) -> None:
    for reply in replies:
        if isinstance(reply, Refusal):
            raise StoreAway(str(reply))


def _pairs(flat: Reply) -> dict[str, str]:
    texts = [_text(one) for one in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _text(reply: Reply) -> str:
    return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)
