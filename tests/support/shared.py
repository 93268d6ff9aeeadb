"""The test data that lies beside the repository, used in place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def shared_data(*parts: str) -> Path:
    """A folder or file of the data, for example ``shared_data("sdp", "real")``.

    Skips the test (or the module, when called at import) where it is absent; with SBC_REQUIRE_PEERS=1 it fails.
    """
    path = ROOT.parent.joinpath("shared", "data", *parts)
    if not path.exists():
        why = f"no test data at {path}"
        if os.environ.get("SBC_REQUIRE_PEERS") == "1":
            pytest.fail(f"{why}, and SBC_REQUIRE_PEERS=1 says that it must be here")
        pytest.skip(why, allow_module_level=True)
    return path
