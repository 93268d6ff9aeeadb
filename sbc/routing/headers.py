"""Headers as route authors see them: what came, read only, and what is to leave, changed in place and seen at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sbc.routing.routes import RouteError
from sbc.sip.headers import HEADERS
from sbc.sip.message import Message

_LONG_NAMES: Final = {name.lower(): header.name for header in HEADERS for name in (header.name, header.compact) if name}
# These make the dialog and are ours alone: a route that set them would break the call or show one side to the other.
OURS: Final = frozenset(
    {"Via", "Max-Forwards", "From", "To", "Call-ID", "CSeq", "Contact", "Content-Length", "Route", "Record-Route"}
)


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
        """One more line."""
        self._items.append(checked(name, value))

    def set(self, name: str, value: str) -> None:
        """This value instead of all that are there."""
        item = checked(name, value)
        self.remove(name)
        self._items.append(item)

    def remove(self, name: str) -> int:
        """Take every line of this name away; returns how many there were."""
        name = long_name(name).lower()
        before = len(self._items)
        self._items[:] = [item for item in self._items if item[0].lower() != name]
        return before - len(self._items)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)


class RequestHeaders(Headers):
    """The headers of the received INVITE. Changes are noted, seen at once, and applied to each branch of the call.

    What is not changed crosses by the node's pass list, as without a route.
    """

    __slots__ = ("edits",)

    def __init__(self, message: Message | None) -> None:
        super().__init__(message.items() if message is not None else [])
        self.edits: list[tuple[str, str | None]] = []  # None: remove all of this name

    def add(self, name: str, value: str) -> None:
        super().add(name, value)
        self.edits.append((name, value))

    def set(self, name: str, value: str) -> None:
        checked(name, value)  # before anything is taken away
        self.remove(name)
        self.add(name, value)

    def remove(self, name: str) -> int:
        refuse_ours(name)
        self.edits.append((name, None))
        return super().remove(name)


def apply(edits: list[tuple[str, str | None]], items: list[tuple[str, str]]) -> None:
    """Do to the headers of a branch what a route did to those of the request."""
    headers = Headers(items)
    for name, value in edits:
        if value is None:
            headers.remove(name)
        else:
            headers.add(name, value)


def refuse_ours(name: str) -> str:
    """The long name; raises RouteError where the header is not for routes."""
    name = long_name(name)
    if name in OURS:
        raise RouteError(f"{name}: this header is made by the dialog and cannot be changed by a route")
    return name


def checked(name: str, value: str) -> tuple[str, str]:
    """A header line that can be sent as it is. Raises RouteError."""
    name = refuse_ours(name)
    if not name or any(c <= " " or c == ":" or c > "~" for c in name):
        raise RouteError(f"{name!r} is no header name")
    if "\r" in value or "\n" in value or "\0" in value:
        raise RouteError(f"{name}: a value with a line end or NUL could smuggle in another header")
    return name, value
