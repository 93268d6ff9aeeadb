"""Builds the compiled half of Portcullis; everything declarative is in pyproject.toml.

Each ``ext/<package path>/_name.pyx`` becomes the module ``<package path>._name`` (Cython), placed beside the Python
files that use it. The modules of ``ext/compiled.txt`` are ordinary typed Python that mypyc compiles as it stands: one
source, and the interpreter remains the reference. What was compiled from which source is kept in ``sbc/compiled.json``,
and a module that has changed since is run by the interpreter (:mod:`sbc.compiled`): no build is needed to try a change,
only to have it fast.
"""

import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from mypyc.build import mypycify
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
EXT = ROOT / "ext"

# Which C files and libraries a compiled module links, by module name.
LINKS: dict[str, dict[str, list[str]]] = {
    "media._datapath": {
        "sources": sorted(str(p.relative_to(ROOT)) for p in (EXT / "c").glob("*.c")),
        "libraries": ["crypto", "m"],
    },
    "media._g722": {"sources": [], "libraries": ["spandsp"]},
    "media._opus": {"sources": [], "libraries": ["opus"]},
}

# What is built only where its header is there: libspandsp-dev, libopus-dev
OPTIONAL = {"media._g722": "spandsp.h", "media._opus": "opus/opus.h"}

# A library's functions call each other, never what somebody else may have put in their place: without these each such
# call goes by way of a table, and none is inlined.
CLOSED = ["-fvisibility=hidden", "-fno-semantic-interposition"]
# no contraction: what C and Python compute alike must come out alike on every machine
CFLAGS = ["-O3", "-g", "-ffp-contract=off", "-Wall", "-Wno-unused-function", "-fno-strict-aliasing", *CLOSED]


def is_there(header: str) -> bool:
    """Whether the compiler finds a header."""
    compiler = os.environ.get("CC", "cc").split()
    found = subprocess.run([*compiler, "-E", "-"], input=f"#include <{header}>\n".encode(), capture_output=True)
    return found.returncode == 0


def extensions() -> list[Extension]:
    """One Extension per .pyx below ext/."""
    found = []
    for pyx in sorted(EXT.rglob("*.pyx")):
        name = ".".join(pyx.relative_to(EXT).with_suffix("").parts)
        if name in OPTIONAL and not is_there(OPTIONAL[name]):
            continue
        link = LINKS.get(name, {})
        found.append(
            Extension(
                name,
                [str(pyx.relative_to(ROOT)), *link.get("sources", [])],
                include_dirs=["ext/c"],
                libraries=link.get("libraries", []),
                extra_compile_args=CFLAGS,
            )
        )
    return found


def compiled() -> list[Extension]:
    """The modules of compiled.txt in one library, and the record of it."""
    lines = (EXT / "compiled.txt").read_text().splitlines()
    paths = {name: name.replace(".", "/") + ".py" for name in lines if name and not name.startswith("#")}
    record = {
        name: hashlib.blake2b((ROOT / path).read_bytes(), digest_size=16).hexdigest() for name, path in paths.items()
    }
    # what is left of an earlier list would hide the source beside it
    for left in (so for package in ("sbc", "media") for so in (ROOT / package).rglob("*.so")):
        source = left.with_name(left.name.partition(".")[0] + ".py").relative_to(ROOT)
        if (ROOT / source).exists() and str(source) not in paths.values():
            left.unlink()
    # of no configuration: types of what is not installed at build time are not needed
    options = ["--config-file=", "--ignore-missing-imports"]
    made: list[Extension] = mypycify(
        [*options, *paths.values()],
        opt_level="2",
        debug_level="0",
        multi_file=True,
        group_name="sbc",
        target_dir="build/mypyc",
    )
    for extension in made:
        extension.extra_compile_args += CLOSED
    (ROOT / "sbc" / "compiled.json").write_text(json.dumps(record, indent=1) + "\n")
    return made


class BuildExt(build_ext):
    """Compiles the files of one extension side by side."""

    def build_extensions(self) -> None:
        one_by_one = self.compiler.compile

        def compile_all(sources: list[str], *args: Any, **options: Any) -> list[str]:  # Any: distutils' own
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                objects = pool.map(lambda source: one_by_one([source], *args, **options), sources)
                return [name for names in objects for name in names]

        self.compiler.compile = compile_all
        super().build_extensions()


def modules() -> list[Extension]:
    """All that is compiled. pip asks for the metadata first, in a run of its own: nothing is translated for that."""
    if "dist_info" in sys.argv or "egg_info" in sys.argv:
        return []
    cython = cythonize(
        extensions(),
        nthreads=2,
        build_dir="build/cython",
        compiler_directives={"language_level": 3, "embedsignature": True},
    )
    return [*cython, *compiled()]


setup(cmdclass={"build_ext": BuildExt}, ext_modules=modules())
