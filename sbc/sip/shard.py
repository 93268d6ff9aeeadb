"""The shard of a call, from its Call-ID alone: 0..1023 (see :mod:`sbc.sip.ids`).

``shard_of(call_id, key)``: a Call-ID of ours (24 characters of a-z2-7) names its shard in the first two; any other is
hashed with SipHash-2-4 under ``key`` (16 octets), so that a stranger cannot aim at one worker.
``shard_of_datagram(data, key)``: the same without parsing; -1 where the datagram has no Call-ID.
``siphash24(data, key)``: the hash itself. All raise ValueError where the key is not 16 octets long.
"""

from __future__ import annotations

from sbc.sip._shard import shard_of, shard_of_datagram, siphash24

__all__ = ["shard_of", "shard_of_datagram", "siphash24"]
