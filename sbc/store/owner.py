"""Who a worker is to the store: the epoch that it owns records with, and the question for it.

A worker that is to count on from what the store says knows no epoch until that answers, and writes nothing before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sbc.store.epoch import UNKNOWN, epoch_of, incarnation_of, last_of, token_of
from sbc.store.keys import Keys
from sbc.store.pipe import Pipe, Refusal, Reply
from sbc.store.script import Script, unknown


class Owner:
    """Over one pipe, for one node's keys.

    ``epoch``    negative while it is not known (``None``: the store says)
    ``token``    the fencing token of this node, 0 where it has none; it may become a later one
    ``refused``  is told what the store says when it refuses to count
    """

    def __init__(
        self, pipe: Pipe, keys: Keys, epoch: int | None, token: Callable[[], int], refused: Callable[[str], None]
    ) -> None:
        self.epoch = UNKNOWN if epoch is None else epoch
        self._pipe = pipe
        self._keys = keys
        self._token = token
        self._refused = refused
        self._incarnate = Script("incarnation")
        self._claim = Script("claim")

    @property
    def is_known(self) -> bool:
        return self.epoch >= 0

    def ceiling(self, lodged: bool) -> int:
        """An owner above it is later than us; for a call that another worker of the node gave us, than the node."""
        return last_of(self.epoch) if lodged and self.is_known else self.epoch

    def fence(self) -> int:
        """Our token: it may have become later since this worker began. 0 for a node without a pair."""
        token = token_of(self.epoch) if self.epoch > 0 else 0
        return max(token, self._token()) if token else 0

    def ask(self, told: Callable[[], None], *, source: bool = False) -> None:
        """Have the store count us. ``told`` is called once it has, or has refused: it can be read then, at least. A
        store that goes away meanwhile is to be asked again."""
        send = self._incarnate.send_source if source else self._incarnate.send
        send(self._pipe, partial(self._counted, told), 1, self._keys.incarnation, 0)

    def _counted(self, told: Callable[[], None], reply: Reply) -> None:
        if isinstance(reply, int):
            self.epoch = epoch_of(self._token(), reply)
        elif unknown(reply):
            self.ask(told, source=True)
            return
        elif isinstance(reply, Refusal):
            self._refused(str(reply))
        else:
            return
        told()

    async def claim(self, keys: list[str]) -> list[Any]:  # Any: replies
        """What these records hold, and that they are ours from now on; a number where a later owner has one.

        Incarnations count on from what is found, if the store has lost count: whoever starts here is the latest.
        """
        if not self.is_known:
            return list(await self._pipe.call("MGET", *keys))
        try:
            for _ in range(2):
                found = await self._pipe.call("EVAL", self._claim.source, len(keys), *keys, self.epoch)
                later = max((reply for reply in found if isinstance(reply, int)), default=UNKNOWN)
                if later < 0 or token_of(later) != token_of(self.epoch):
                    break
                above = incarnation_of(later)
                reply = await self._pipe.call("EVAL", self._incarnate.source, 1, self._keys.incarnation, above)
                self.epoch = epoch_of(self._token(), reply)
        except Refusal as error:  # no memory, or a replica: they are read all the same
            self._refused(str(error))
            return list(await self._pipe.call("MGET", *keys))
        return list(found)
