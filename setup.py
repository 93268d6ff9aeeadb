"""Builds the compiled half of Portcullis; everything declarative is in pyproject.toml.

Each ``ext/<package path>/_name.pyx`` becomes the module ``<package path>._name``, placed beside the Python files
that use it. Modules listed in PURE are ordinary ``.py`` files that Cython compiles with the types of the ``.pxd``
beside them: one source, and the interpreter (``SBC_PURE=1``) remains the reference. Such a ``.py`` needs a build after
each change, as a ``.pyx`` does; without the types, compiling gains nothing over the interpreter.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).parent
EXT = ROOT / "ext"

# Which C files and libraries a compiled module links, by module name.
LINKS: dict[str, dict[str, list[str]]] = {
    "media._datapath": {
        "sources": sorted(str(p.relative_to(ROOT)) for p in (EXT / "c").glob("*.c")),
        "libraries": ["crypto"],
    },
}

# Plain Python modules that the profile names as hot.
PURE: list[str] = [f"sbc.transaction.{name}" for name in ("timers", "machine", "client", "server", "layer")]

CFLAGS = ["-O3", "-g", "-Wall", "-Wno-unused-function", "-fno-strict-aliasing"]


def extensions() -> list[Extension]:
    """One Extension per .pyx below ext/, then one per module of PURE."""
    found = []
    for pyx in sorted(EXT.rglob("*.pyx")):
        name = ".".join(pyx.relative_to(EXT).with_suffix("").parts)
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
    if not os.environ.get("SBC_PURE"):
        found += [Extension(name, [name.replace(".", "/") + ".py"], extra_compile_args=CFLAGS) for name in PURE]
    return found


setup(
    ext_modules=cythonize(
        extensions(),
        nthreads=2,
        build_dir="build/cython",
        # the types of a .py are those of its .pxd: an annotation "float" would let no int pass
        compiler_directives={"language_level": 3, "embedsignature": True, "annotation_typing": False},
    )
)
