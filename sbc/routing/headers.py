"""Headers as route authors see them: what came, read only, and what is to leave, changed in place and seen at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from sbc.b2bua.changes import Edits, apply
from sbc.routing.routes import RouteError
from sbc.sip.headers import HEADERS
from sbc.sip.message import Message

_LONG_NAMES: Final = {name.lower(): header.name for header in HEADERS for name in (header.name, header.compact) if name}
# These make the dialog, or say what both ends have agreed on, and are ours alone: a route that set them would break the
# call or show one side to the other.
OURS: Final[dict[str, str]] = {
    **dict.fromkeys(
        ("via", "max-forwards", "call-id", "cseq", "contact", "content-length", "route", "record-route"), ""
    ),
    **dict.fromkeys(("require", "supported", "session-expires", "min-se", "rseq", "rack", "max-breadth"), ""),
    "from": ": its display name and URI are from_",
    "to": ": its display name and URI are to",
}


def long_name(name: str) -> str:
    """The usual spelling of a header name given in any case or in compact form; unknown names as they are."""
    return _LONG_NAMES.get(name.lower(), name)


class ReceivedHeaders:
    """The headers of a received message. Names in any case, long or compact."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    def get(self, name: str) -> str | None:
        """The first value, None where the header is absent."""
        return self._message.get(name)

    def get_all(self, name: str) -> list[str]:
        """Every value in order, list headers taken apart."""
        return self._message.get_all(name)

    def __contains__(self, name: str) -> bool:
        return self._message.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._message.items())


class Headers:
    """Headers of a message that is to leave. A change is there for the next line to see.

    Raises RouteError for a header that is ours alone, and for a name or value that could not be sent as it is.
    """

    __slots__ = ("_items",)

    def __init__(self, items: list[tuple[str, str]]) -> None:
        self._items = items  # shared with the message that will be built from it: changed in place only

    def get(self, name: str) -> str | None:
        """The first value, None where the header is absent."""
        name = long_name(name).lower()
        for header, value in self._items:
            if header.lower() == name:
                return value
        return None

    def get_all(self, name: str) -> list[str]:
        """Every value in order."""
        name = long_name(name).lower()
        return [value for header, value in self._items if header.lower() == name]

    def add(self, name: str, value: str) -> None:
        """One more line, after all others."""
        self._items.append(checked(name, value))

    def set(self, name: str, value: str) -> None:
        """This value instead of all that are there."""
        item = checked(name, value)
        self.remove(name)
        self._items.append(item)

    def remove(self, name: str) -> int:
        """Take every line of this name away; returns how many there were."""
        name = refuse_ours(name).lower()
        before = len(self._items)
        self._items[:] = [item for item in self._items if item[0].lower() != name]
        return before - len(self._items)

    def rename(self, name: str, to: str) -> int:
        """Give every line of this name another one, with its value, after all others; returns how many there were."""
        values = self.get_all(name)
        for value in values:
            checked(to, value)  # before anything is taken away
        self.remove(name)
        for value in values:
            self.add(to, value)
        return len(values)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)


class RequestHeaders(Headers):
    """The headers of a received request. Changes are noted in ``edits``, seen at once, and done to each branch of the
    call, or to the request as it is relayed.

    What is not changed crosses by the node's pass list, as without a route.
    """

    __slots__ = ("_decided", "edits")

    def __init__(self, message: Message, edits: Edits, decided: Callable[[str], None] | None = None) -> None:
        super().__init__(message.items())
        self.edits = edits  # shared with the call: added to only
        self._decided = decided
        if edits:
            apply(edits, self._items)

    def add(self, name: str, value: str) -> None:
        item = checked(_not_content(name), value)
        self._items.append(item)
        self.edits.append(item)
        if self._decided is not None:
            self._decided(f"Adds the header {item[0]}: {value}.")

    def set(self, name: str, value: str) -> None:
        item = checked(_not_content(name), value)  # before anything is taken away
        self._remove(item[0])
        self._items.append(item)
        self.edits.append(item)
        if self._decided is not None:
            self._decided(f"Sets the header {item[0]} to {value}.")

    def remove(self, name: str) -> int:
        name = refuse_ours(_not_content(name))
        if self._decided is not None:
            self._decided(f"Removes the header {name}.")
        return self._remove(name)

    def _remove(self, name: str) -> int:
        self.edits.append((name, None))
        return Headers.remove(self, name)

    def read_again(self, message: Message) -> None:
        """The request is another one now."""
        self._items[:] = message.items()
        apply(self.edits, self._items)


def _not_content(name: str) -> str:
    if long_name(name) == "Content-Type":
        raise RouteError("Content-Type: said together with the body: request.set_body(body, content_type)")
    return name


def refuse_ours(name: str) -> str:
    """The long name; raises RouteError where the header is not for routes."""
    name = long_name(name)
    instead = OURS.get(name.lower())
    if instead is not None:
        raise RouteError(f"{name}: this header belongs to the dialog, and a route cannot change it{instead}")
    return name


def checked(name: str, value: str) -> tuple[str, str]:
    """A header line that can be sent as it is. Raises RouteError."""
    name = refuse_ours(name)
    if not name or any(c <= " " or c == ":" or c > "~" for c in name):
        raise RouteError(f"{name!r} is no header name")
    if "\r" in value or "\n" in value or "\0" in value:
        raise RouteError(f"{name}: a value with a line end or NUL could smuggle in another header")
    return name, value
