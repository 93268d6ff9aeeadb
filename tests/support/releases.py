"""Releases of the product beside each other, for a node that a test runs."""

from __future__ import annotations

from typing import Any

from sbc.selftest import releases
from sbc.selftest.measure import Failed
from tests.support.sbc import Sbc


class Releases(releases.Releases):
    """See there."""

    def upgrade(self, node: Sbc, limit_s: float = 60.0) -> dict[str, Any]:  # Any: JSON values
        """Have a node take the release over that is in place; what it tells in the end."""
        try:
            return self.take_over(node.directory, node.main_pid, limit_s)
        except Failed as error:
            told = releases.told(node.directory / "run" / "upgrade.json")
            raise AssertionError(f"{error}: {told}\n{node.log[-6000:]}") from None
