"""From a file to a frozen :class:`~sbc.config.models.Config`, or to every fault of the file, each with its place.

Paths in the file may be relative: they are relative to the file itself, and absolute in the Config.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from sbc.config import checks, source
from sbc.config.lookups import Lookups
from sbc.config.media import MediaFiles
from sbc.config.models import Config, MediaNode, Realm
from sbc.config.source import Fault, Source
from sbc.errors import ConfigError

Root = TypeVar("Root", bound=BaseModel)


def load(path: str | Path) -> Config:
    """Read, validate and cross-check ``path``; raises ConfigError with every fault."""
    config, faults = check(path)
    if config is None or faults:
        raise ConfigError([str(fault) for fault in faults])
    return config


def load_media_node(path: str | Path) -> MediaNode:
    """The configuration of a media node; raises ConfigError with every fault."""
    file = str(path)
    try:
        read = source.read(Path(path).read_bytes(), file)
    except OSError as error:
        raise ConfigError([f"{file}: cannot read the file: {(error.strerror or str(error)).lower()}"]) from error
    node = _validated(read, MediaNode) if read.values else None
    if node is None or read.faults:
        faults = [str(fault) for fault in sorted(set(read.faults))]
        raise ConfigError(faults or [f"{file}: the file is empty"])
    base = Path(os.path.abspath(file)).parent

    def at(path: str) -> str:
        return os.path.normpath(base / path) if path else ""

    changes = {"run_dir": at(node.run_dir), "state_dir": at(node.state_dir), "media": _media(node.media, at)}
    return node.model_copy(update=changes)


def check(path: str | Path) -> tuple[Config | None, list[Fault]]:
    """The configuration (None when it is unusable) and its faults in the order of the file."""
    file = str(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return None, [Fault(file, 1, 1, "", f"cannot read the file: {reason}")]
    return check_text(data, file)


def check_text(text: str | bytes, file: str) -> tuple[Config | None, list[Fault]]:
    """As :func:`check`, for text that is not (yet) in the file, as a panel has it before it saves."""
    read = source.read(text, file)
    if not read.values:
        return None, sorted(set(read.faults)) or [Fault(file, 1, 1, "", "the file is empty")]
    base = Path(os.path.abspath(file)).parent
    config = _validated(read, Config)
    if config is not None:
        config = _absolute(config, base)
        checks.cross_check(config, read)
    faults = sorted(set(read.faults))
    return (None if faults else config), faults


def _validated(read: Source, root: type[Root]) -> Root | None:
    """The model; after faults, the one that is left without the unknown keys, so that the cross-checks still run."""
    try:
        return root.model_validate(read.values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
    unknown = []
    told: set[source.Path] = set()
    for detail in details:
        where = _existing(read, detail["loc"], keep_missing=detail["type"] == "missing")
        if detail["type"] == "extra_forbidden":
            unknown.append(where)
            read.fault(where, _unknown_key(where, root), key=True)
        elif where not in told:  # a union reports once per member
            told.add(where)
            read.fault(where, _sentence(detail, where), key=detail["type"] == "missing")
    for where in unknown:
        holder: Any = read.values  # Any: whatever the YAML holds
        for part in where[:-1]:
            holder = holder[part]
        holder.pop(where[-1], None)
    try:
        return root.model_validate(read.values)
    except ValidationError:
        return None


def _existing(read: Source, loc: Iterable[str | int], *, keep_missing: bool) -> source.Path:
    """The part of pydantic's path that is in the file: what follows names union members and fields parsed from text."""
    path = tuple(loc)
    end = len(path)
    while end and not read.has(path[:end]):
        end -= 1
    return path[: end + 1] if keep_missing else path[:end]


def _absolute(config: Config, base: Path) -> Config:
    """Relative paths made absolute, seen from the folder of the file."""

    def at(path: str) -> str:
        return os.path.normpath(base / path) if path else ""

    def database_at(url: str) -> str:
        # SQLAlchemy: three slashes and a relative path, four and an absolute one.
        if url.startswith("sqlite:///") and not url.startswith("sqlite:////") and url != "sqlite:///:memory:":
            return "sqlite:///" + at(url.removeprefix("sqlite:///"))
        return url

    return config.model_copy(
        update={
            "run_dir": at(config.run_dir),
            "state_dir": at(config.state_dir),
            "routes": at(config.routes),
            "routes_tests": [at(path) for path in config.routes_tests],
            "database": database_at(config.database),
            "lookups": _lookups(config.lookups, at, database_at),
            "realms": {name: _realm(realm, at) for name, realm in config.realms.items()},
            "media": _media(config.media, at),
            "ha": config.ha and config.ha.model_copy(update={"key_file": at(config.ha.key_file)}),
            "cdr": config.cdr.model_copy(update={"csv": at(config.cdr.csv)}),
        }
    )


def _lookups(lookups: Lookups, at: Callable[[str], str], database_at: Callable[[str], str]) -> Lookups:
    if not lookups.are_configured:
        return lookups
    changes: dict[str, Any] = {  # Any: each key has a type of its own
        "databases": {
            name: one.model_copy(update={"url": SecretStr(database_at(one.url.get_secret_value()))})
            for name, one in lookups.databases.items()
        }
    }
    if lookups.http is not None:
        changes["http"] = lookups.http.model_copy(update={"ca": at(lookups.http.ca)})
    return lookups.model_copy(update=changes)


def _media(files: MediaFiles, at: Callable[[str], str]) -> MediaFiles:
    return files.model_copy(update={"prompts": at(files.prompts), "recordings": at(files.recordings)})


def _realm(realm: Realm, at: Callable[[str], str]) -> Realm:
    tls = realm.tls
    if tls is None:
        return realm
    more = [one.model_copy(update={"certificate": at(one.certificate), "key": at(one.key)}) for one in tls.by_name]
    files = {"certificate": at(tls.certificate), "key": at(tls.key), "ca": at(tls.ca), "by_name": more}
    return realm.model_copy(update={"tls": tls.model_copy(update=files)})


# --- sentences


def suggestion(word: str, known: Iterable[str]) -> str:
    """`` did you mean 'x'?`` or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean '{close[0]}'?" if close else ""


def _unknown_key(path: source.Path, root: type[BaseModel]) -> str:
    model = _model_at(path[:-1], root)
    fields = [field.alias or name for name, field in model.model_fields.items()]
    return "unknown key" + (suggestion(str(path[-1]), fields) or f"; the keys here are {', '.join(fields)}")


def _model_at(path: source.Path, root: type[BaseModel]) -> type[BaseModel]:
    """The model that describes the mapping at ``path``, found through the annotations."""
    model = root
    names = list(path)
    while names:
        key = names.pop(0)
        fields = (field for name, field in model.model_fields.items() if key in (name, field.alias))
        annotation: Any = next(fields).annotation  # Any: a type, or one of the forms of typing
        while arguments := getattr(annotation, "__args__", ()):
            if type(None) in arguments or hasattr(annotation, "__metadata__"):  # X | None, Annotated[X, ...]
                annotation = arguments[0]
                continue
            annotation = arguments[-1]  # dict[str, X] or list[X]: the next part is a name or an index
            if names:
                names.pop(0)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return model


_SENTENCES: dict[str, str] = {
    "missing": "this key is required",
    "string_type": "should be text: put {input} in quotes",
    "int_type": "should be a whole number, not {input}",
    "int_parsing": "should be a whole number, not {input}",
    "int_from_float": "should be a whole number, not {input}",
    "float_type": "should be a number, not {input}",
    "float_parsing": "should be a number, not {input}",
    "bool_type": "should be true or false, not {input}",
    "bool_parsing": "should be true or false, not {input}",
    "greater_than_equal": "should be at least {ge}, not {input}",
    "greater_than": "should be greater than {gt}, not {input}",
    "less_than_equal": "should be at most {le}, not {input}",
    "less_than": "should be less than {lt}, not {input}",
    "too_short": "should hold at least {min_length} entry",
    "dict_type": "should be a mapping of keys, not {input}",
    "model_type": "should be a mapping of keys, not {input}",
    "model_attributes_type": "should be a mapping of keys, not {input}",
    "list_type": "should be a list, not {input}",
    "tuple_type": "should be a range such as 30000-39999, not {input}",
    "string_pattern_mismatch": "{input} should be letters, digits, '.' and '-' only, and begin with a letter or digit",
}


def _sentence(detail: ErrorDetails, path: source.Path) -> str:
    kind, given = detail["type"], detail["input"]
    context: dict[str, Any] = detail.get("ctx") or {}  # Any: pydantic's own
    if kind == "value_error":
        return str(context.get("error", detail["msg"]))
    if kind == "literal_error":
        named = str(detail["loc"][-1])
        what = "" if path and path[-1] == named else f"{named} "
        allowed = str(context["expected"])
        return f"{what}should be {allowed}, not {_shown(given)}" + suggestion(
            str(given), allowed.replace("'", "").split(" or ")
        )
    if kind.startswith("ip_") or "ip_address" in kind:
        return _address_sentence(given, network="network" in kind or "interface" in kind)
    template = _SENTENCES.get(kind)
    if template is None:
        return detail["msg"][0].lower() + detail["msg"][1:]
    return template.format(**{**context, "input": _shown(given)})


def _address_sentence(given: object, *, network: bool) -> str:
    if not network:
        return f"{_shown(given)} is not an IP address (host names are not taken here)"
    try:
        wide = ipaddress.ip_network(str(given), strict=False)
    except ValueError:
        return f"{_shown(given)} is not an IP address or network"
    return f"{_shown(given)} has bits set behind its prefix, did you mean '{wide}'?"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = str(value)
    return f"'{text[:60]}…'" if len(text) > 60 else f"'{text}'"
