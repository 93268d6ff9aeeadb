"""``python -m tests.fuzz.run --minutes N``: the fuzz tests over and over, with other seeds and longer than CI has time
for, until the time is over or one fails; then the output says with which seed, and ``--seed`` runs that one again."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

FOLDER = Path(__file__).parent
EXAMPLES = 5000  # of each test and file: a round takes some minutes


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.run", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0, help="of the only round (0: another one each round)")
    parser.add_argument("--examples", type=int, default=EXAMPLES, help=f"of each test and file in a round ({EXAMPLES})")
    arguments = parser.parse_args()
    end, rounds = time.monotonic() + 60 * arguments.minutes, 0
    while time.monotonic() < end and not (arguments.seed and rounds):
        seed = arguments.seed or random.SystemRandom().randrange(1, 2**31)
        rounds += 1
        print(f"fuzz: round {rounds}, seed {seed}", flush=True)
        environment = {"FUZZ_SEED": str(seed), "SBC_FUZZ_EXAMPLES": str(arguments.examples)}
        words = [
            "-m",
            "pytest",
            f"--hypothesis-seed={seed}",
            "-x",
            "-p",
            "no:cacheprovider",
            "--timeout=0",
            str(FOLDER),
        ]
        done = subprocess.run([sys.executable, *words], env={**os.environ, **environment}, cwd=FOLDER.parents[1])
        if done.returncode:
            print(f"fuzz: found with --seed {seed} --examples {arguments.examples}")
            return 1
    print(f"fuzz: {rounds} rounds, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
