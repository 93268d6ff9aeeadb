"""What the routes of a call have changed of its request.

Whatever is made of the request afterwards is made of what they left: the next line of the route sees a change at once,
and so do the routes after it, each branch and the offer. What A sent stays in the CDR.
"""

from __future__ import annotations

from sbc.b2bua.call import Headers

Edits = list[tuple[str, str | None]]  # None: remove all of this name


class Changes:
    """``uri`` and ``from_uri`` as they are now, and what was done to the headers of each branch, in order.

    From, To, Request-URI and body are changed in ``call.request`` itself; the headers that cross are an allow-list, so
    what a route did to headers is done to those of the branch (:func:`apply`).
    """

    __slots__ = ("edits", "from_uri", "uri")

    def __init__(self, uri: str, from_uri: str) -> None:
        self.uri = uri
        self.from_uri = from_uri
        self.edits: Edits = []


def apply(edits: Edits, headers: Headers) -> None:
    """Do to headers that are to leave what a route did to those of the request, in its order; names are long ones."""
    for name, value in edits:
        if value is None:
            gone = name.lower()
            headers[:] = [item for item in headers if item[0].lower() != gone]
        else:
            headers.append((name, value))
