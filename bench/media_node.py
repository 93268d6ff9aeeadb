"""One media worker of the SBC in a process of its own: ``python -m bench.media_node ENDPOINT NEAR FAR``."""

from __future__ import annotations

import sys

import sbc  # noqa: F401  # decides between compiled and interpreted modules
from media.config import MediaConfig, RealmInterface
from media.worker import run


def main() -> int:
    endpoint, near, far = sys.argv[1:4]
    realms = {
        "near": RealmInterface(near, ports=(20000, 59999), nat="never"),
        "far": RealmInterface(far, ports=(20000, 59999), nat="never"),
    }
    return run(MediaConfig(slot=0, endpoint=endpoint, realms=realms))


if __name__ == "__main__":
    sys.exit(main())
