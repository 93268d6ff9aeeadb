"""What a starting worker finds in the journal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

from sbc.store.keys import Keys, is_member
from sbc.store.pipe import Pipe, Refusal, Reply
from sbc.store.unstored import Unstored

_SHARDS_AT_ONCE = 64
_RECORDS_AT_ONCE = 64
_HEADER = re.compile(rb"1 \d{1,16} (\d{1,16})")


class StoredCall(NamedTuple):
    """A record as :func:`load` found it; ``key`` may be the digest of the call's own key."""

    key: str
    shard: int
    record: bytes
    version: int = -1  # -1: the value has no header of ours


async def load(
    pipe: Pipe,
    keys: Keys,
    shards: Iterable[int],
    note: Callable[[str, str, dict[str, Any]], None],  # Any: log fields
    take_over: Callable[[list[str]], Awaitable[list[Any]]],  # Any: replies
    drop: Callable[[str, int], None],
    mend: Callable[[str], None],
    ended: Collection[str] = (),
) -> AsyncIterator[StoredCall]:
    """Every record of these shards, whatever it holds: the core judges. Raises StoreError when the store is away.

    ``take_over`` reads records by their keys and makes us their owner; what a later owner has is passed over. So are
    those whose member is in ``ended``: their calls are over, and their CDRs on the way.
    ``drop`` removes a member and its record from a shard, ``mend`` an index that is none; never a later owner's.
    Foreign content in an index, and members whose record is gone, are removed on the way.
    """
    remaining = iter(shards)
    while batch := list(islice(remaining, _SHARDS_AT_ONCE)):
        replies = await asyncio.gather(
            *(pipe.call("SMEMBERS", keys.shard(shard)) for shard in batch), return_exceptions=True
        )
        members: list[tuple[int, str]] = []
        for shard, reply in zip(batch, replies, strict=True):
            if isinstance(reply, Refusal):
                note("error", "a foreign value in place of an index", {"shard": shard})
                mend(keys.shard(shard))
            elif isinstance(reply, BaseException):
                raise reply
            else:
                members += (found for found in _proper(pipe, keys, shard, reply) if found[1] not in ended)
        for start in range(0, len(members), _RECORDS_AT_ONCE):
            async for stored in _records(keys, members[start : start + _RECORDS_AT_ONCE], note, take_over, drop):
                yield stored


async def with_deadline(pipe: Pipe, deadline_s: float, found: AsyncIterator[StoredCall]) -> AsyncIterator[StoredCall]:
    """The same, each command of ``pipe`` having so long meanwhile, if that is longer than usual."""
    usual_s = pipe.deadline_s
    pipe.deadline_s = max(usual_s, deadline_s)
    try:
        async for stored in found:
            yield stored
    finally:
        pipe.deadline_s = usual_s


async def with_unstored(
    found: AsyncIterator[StoredCall], unstored: Unstored, shards: Iterable[int], token: int, ended: Collection[str]
) -> AsyncIterator[StoredCall]:
    """The same, and what the store never got of these shards: a later version in place of an earlier one, the rest at
    the end. ``token``: what was left under another one is forgotten, for somebody else has served since."""
    mine = set(shards)
    for member, left in list(unstored.left.items()):
        if left.token != token or left.shard not in mine:
            unstored.stored(member)
    waiting = {member: left for member, left in unstored.left.items() if member not in ended}
    async for stored in found:
        there = waiting.pop(stored.key, None)
        if there is not None and there.version > stored.version:
            yield StoredCall(stored.key, stored.shard, there.record, there.version)
        else:
            yield stored
    for member, left in waiting.items():
        yield StoredCall(member, left.shard, left.record, left.version)


def _proper(pipe: Pipe, keys: Keys, shard: int, found: list[bytes]) -> Iterator[tuple[int, str]]:
    for raw in found:
        member = raw.decode("utf-8", "replace")
        if is_member(member):
            yield shard, member
        else:
            pipe.send(_ignore, "SREM", keys.shard(shard), raw)


async def _records(
    keys: Keys,
    members: list[tuple[int, str]],
    note: Callable[[str, str, dict[str, Any]], None],  # Any: log fields
    take_over: Callable[[list[str]], Awaitable[list[Any]]],  # Any: replies
    drop: Callable[[str, int], None],
) -> AsyncIterator[StoredCall]:
    values = await take_over([keys.call(member) for _, member in members])
    for (shard, member), value in zip(members, values, strict=True):
        if isinstance(value, int):
            note("warning", "a later owner has this call: not resumed", {"call": member, "epoch": value})
            continue
        if value is None:  # expired, or not even a string
            drop(member, shard)
        else:
            header, newline, record = value.partition(b"\n")
            if newline and (found := _HEADER.fullmatch(header)):
                yield StoredCall(member, shard, record, int(found[1]))
            else:
                yield StoredCall(member, shard, record if newline and header[:2] == b"1 " else value)


def _ignore(_: Reply) -> None:
    """For commands whose failure is met again by whatever comes next."""
