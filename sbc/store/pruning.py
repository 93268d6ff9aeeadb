"""Records that a store should not have any more: it has come back with what it had some time ago.

Calls have ended since then, and a successor of their worker would take them up again: nobody talks there, and it takes
until the next refresh of the session to find out. While the worker lives it knows all calls of its shards, so what is
there besides is removed as soon as the store is back. What a later owner has stays, as everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from itertools import islice

from sbc.errors import StoreError
from sbc.store.keys import Keys, is_member, member_of
from sbc.store.pipe import Pipe

_SHARDS_AT_ONCE = 16  # in between others have the pipe
_AGAIN_S = 1.0
_TRIES = 30

Known = Callable[[], Collection[str]]
Drop = Callable[[str, int], None]


async def prune(pipe: Pipe, keys: Keys, shards: Iterable[int], known: Known, drop: Drop) -> int:
    """Give ``drop`` (member, shard) of all that is in the indexes of these shards and not ``known``, which is asked
    for the keys of all that lives; how many that were. Begins again where the store goes away meanwhile."""
    remaining, dropped = iter(shards), 0
    batch = list(islice(remaining, _SHARDS_AT_ONCE))
    tries = _TRIES
    while batch:
        replies = await asyncio.gather(
            *(pipe.call("SMEMBERS", keys.shard(shard)) for shard in batch), return_exceptions=True
        )
        if any(isinstance(reply, StoreError) for reply in replies):
            tries -= 1
            if not tries:
                return dropped
            await asyncio.sleep(_AGAIN_S)
            continue
        live = {member_of(key) for key in known()}  # after the replies: what they have and we do not is no new call
        for shard, reply in zip(batch, replies, strict=True):
            for raw in reply if isinstance(reply, list | set) else ():
                member = raw.decode("utf-8", "replace")
                if is_member(member) and member not in live:
                    drop(member, shard)
                    dropped += 1
        batch = list(islice(remaining, _SHARDS_AT_ONCE))
    return dropped
