"""Loads an operator's routes module from a file, apart from every other module and from its own earlier version."""

from __future__ import annotations

import importlib.util
import itertools
import sys
import traceback
from collections import deque
from pathlib import Path

from sbc.b2bua.effects import RouteKind
from sbc.errors import ConfigError
from sbc.routing.routes import Routes

KEPT = 16  # modules that sys.modules knows; calls keep what they use of older ones alive

_versions = itertools.count(1)
_names: deque[str] = deque()


def load_routes(path: str, text: bytes | None = None) -> Routes:
    """Import the file and return its ``routes`` object; '' gives the built-in routes. ``text`` is run in the place of
    what is in the file.

    Every load is a module of its own, so a reload that fails leaves the old routes as they were. Raises ConfigError
    with ``file:line: what`` for a file that cannot be read, raises, or defines no usable ``routes``.
    """
    if not path:
        import sbc.routing.builtin as builtin

        builtin.routes.known = vars(builtin)
        return builtin.routes
    file = Path(path)
    name = f"sbc_routes_{next(_versions)}_{''.join(c if c.isalnum() else '_' for c in file.stem)}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError([f"{path}: routes must be a Python file, its name ending in .py"])
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickling look a class's module up there
    try:
        if text is None:
            spec.loader.exec_module(module)
        else:
            exec(compile(text, path, "exec"), module.__dict__)
        routes = getattr(module, "routes", None)
        if not isinstance(routes, Routes):
            raise ConfigError([f"{path}: defines no routes, for example: routes = Routes()"])
        if RouteKind.REQUEST not in routes.by_kind:
            raise ConfigError([f"{path}: has no function under @routes.route"])
    except ConfigError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise ConfigError([_fault(path, error)]) from error
    routes.known = vars(module)
    _names.append(name)
    if len(_names) > KEPT:
        sys.modules.pop(_names.popleft(), None)
    return routes


def _fault(path: str, error: Exception) -> str:
    """``file:line: error``: the deepest line within the file, or the line that is no Python."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return f"{path}:{error.lineno}: {error.msg}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    where = f"{path}:{lines[-1]}" if lines else path
    return f"{where}: {type(error).__name__}: {error}"
