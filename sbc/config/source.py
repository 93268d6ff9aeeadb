"""A YAML file as plain values with the line and column of every key and value.

YAML 1.2: ``no`` and ``12:30`` are text, and ``0123`` is the number 123. Faults of the text itself (syntax, duplicate
keys) are collected here, each with its place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that is wrong with a configuration file; lines and columns count from 1."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        path = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}:{self.column}: {path}{self.message}"


@dataclass(slots=True)
class Source:
    """The values of a file, where each stands, and the faults found so far."""

    file: str
    values: dict[str, Any] = field(default_factory=dict)  # Any: whatever the YAML holds; checked by the models
    faults: list[Fault] = field(default_factory=list)
    _keys: dict[Path, tuple[int, int]] = field(default_factory=dict)
    _places: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def fault(self, path: Path, message: str, *, key: bool = False) -> None:
        """Note a fault at the value of ``path``, or with ``key`` at its key; what is absent has its parent's place."""
        line, column = self._place(path, key)
        self.faults.append(Fault(self.file, line, column, dotted(path), message))

    def place(self, path: Path) -> str:
        """``file:line`` of the value at ``path``."""
        return f"{self.file}:{self._place(path, False)[0]}"

    def has(self, path: Path) -> bool:
        return path in self._places

    def _place(self, path: Path, key: bool) -> tuple[int, int]:
        tables = (self._keys, self._places) if key else (self._places, self._keys)
        for table in tables:
            if path in table:
                return table[path]
        return self._place(path[:-1], True) if path else (1, 1)


def dotted(path: Path) -> str:
    """``realms.core.listen.0``"""
    return ".".join(str(part) for part in path)


def read(text: str | bytes, file: str) -> Source:
    """Read YAML; never raises for what the text holds, the faults tell."""
    source = Source(file)
    yaml = YAML(typ="safe", pure=True)
    # Duplicate keys are found below, all of them and with both places, where ruamel.yaml would stop at the first.
    yaml.allow_duplicate_keys = True
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        root = yaml.compose(text)
        if root is None:
            source.faults.append(Fault(file, 1, 1, "", "the file is empty"))
            return source
        if not isinstance(root, MappingNode):
            source._places[()] = _mark(root)
            source.fault((), "the file should be a mapping of keys, such as 'realms:'")
            return source
        _walk(root, (), source, set())
        values = yaml.constructor.construct_document(root)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        said = " ".join(part for part in (error.context, error.problem) if part)
        source.faults.append(Fault(file, place[0], place[1], "", f"not YAML: {said}"))
    except (YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        source.faults.append(Fault(file, 1, 1, "", f"not YAML: {error}".splitlines()[0]))
    else:
        source.values = _without_empty(values)
    return source


def _mark(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _walk(node: Node, path: Path, source: Source, above: set[int]) -> None:
    """Record the place of each key and value below ``node``. ``above``: an alias may stand inside its own anchor."""
    source._places.setdefault(path, _mark(node))
    if id(node) in above:
        raise YAMLError("an alias refers to what contains it")
    above = above | {id(node)}
    if isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), source, above)
    elif isinstance(node, MappingNode):
        seen: dict[str, tuple[int, int]] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, ScalarNode) else "?"
            at = (*path, name)
            if key.tag == "tag:yaml.org,2002:merge":  # '<<': the keys stand where the anchor wrote them
                _walk(value, path, source, above)
                continue
            source._keys[at] = source._places[at] = _mark(key)
            if name in seen:
                source.fault(at, f"duplicate key, already given on line {seen[name][0]}", key=True)
            seen[name] = _mark(key)
            source._places.pop(at, None)
            _walk(value, at, source, above)


def _without_empty(value: Any) -> Any:  # Any: whatever the YAML holds
    """``peers:`` with nothing behind it means the same as no such key; other keys than text are taken as text."""
    if isinstance(value, dict):
        return {str(key): _without_empty(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value
