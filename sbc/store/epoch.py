"""Who owns a record: the epoch that it is written with.

An epoch orders owners in time. A node that must hold a lease to serve has a fencing token, a later one with each change
of nodes; below it come the incarnations of workers, which the store counts. So a later token is above every incarnation
under an earlier one, and a successor is above the worker whose place it takes, hung or alive.
"""

from __future__ import annotations

INCARNATION_BITS = 20
MAX_TOKEN = (1 << 33) - 1  # epochs stay below 2**53, which is as far as numbers are exact in the store's scripts
UNKNOWN = -1  # the store has not said yet: nothing can be written


def epoch_of(token: int, incarnation: int) -> int:
    """The epoch of a worker. Raises ValueError for a token that is too large; incarnations wrap, after a million."""
    if not 0 <= token <= MAX_TOKEN:
        raise ValueError(f"fencing token {token} is not within 0 to {MAX_TOKEN}")
    return (token << INCARNATION_BITS) | (incarnation & ((1 << INCARNATION_BITS) - 1))


def last_of(epoch: int) -> int:
    """The highest epoch under the same token."""
    return epoch | ((1 << INCARNATION_BITS) - 1)


def token_of(epoch: int) -> int:
    """The fencing token in an epoch; 0 for a node that has none."""
    return epoch >> INCARNATION_BITS


def incarnation_of(epoch: int) -> int:
    """Which worker of its node that was."""
    return epoch & ((1 << INCARNATION_BITS) - 1)
