"""The header fields that Portcullis knows: long name, compact form (RFC 3261 §7.3.3), and how often one may appear.

A header that is not in this table is carried as it stands, under the name it came with.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Arity(Enum):
    """How the values of a header field are laid out."""

    SINGLE = 1  # at most one line; a second one makes the message ambiguous, hence invalid
    LIST = 2  # any number of lines, each a comma-separated list (RFC 3261 §7.3.1)
    LINES = 3  # each line is one value; commas mean something else, and a needless second line harms nobody


class Header(NamedTuple):
    """One row: ``compact`` is '' where no compact form is registered."""

    name: str
    compact: str
    arity: Arity


_SINGLE, _LIST, _LINES = Arity.SINGLE, Arity.LIST, Arity.LINES

# The first ten rows are named by position in _message.pyx: append, never insert before them.
HEADERS: tuple[Header, ...] = (
    Header("Via", "v", _LIST),
    Header("From", "f", _SINGLE),
    Header("To", "t", _SINGLE),
    Header("Call-ID", "i", _SINGLE),
    Header("CSeq", "", _SINGLE),
    Header("Max-Forwards", "", _SINGLE),
    Header("Content-Length", "l", _SINGLE),
    Header("Contact", "m", _LIST),
    Header("Timestamp", "", _LINES),
    Header("Route", "", _LIST),
    Header("Record-Route", "", _LIST),
    Header("Content-Type", "c", _SINGLE),
    Header("Content-Encoding", "e", _LIST),
    Header("Content-Disposition", "", _SINGLE),
    Header("Content-Language", "", _LIST),
    Header("Content-ID", "", _LINES),
    Header("MIME-Version", "", _LINES),
    Header("Accept", "", _LIST),
    Header("Accept-Contact", "a", _LIST),
    Header("Accept-Encoding", "", _LIST),
    Header("Accept-Language", "", _LIST),
    Header("Accept-Resource-Priority", "", _LIST),
    Header("Alert-Info", "", _LIST),
    Header("Allow", "", _LIST),
    Header("Allow-Events", "u", _LIST),
    Header("Authentication-Info", "", _LINES),
    Header("Authorization", "", _LINES),
    Header("Call-Info", "", _LIST),
    Header("Date", "", _LINES),
    Header("Diversion", "", _LIST),
    Header("Error-Info", "", _LIST),
    Header("Event", "o", _SINGLE),
    Header("Expires", "", _SINGLE),
    Header("Feature-Caps", "", _LIST),
    Header("Flow-Timer", "", _LINES),
    Header("Geolocation", "", _LIST),
    Header("Geolocation-Error", "", _LINES),
    Header("Geolocation-Routing", "", _LINES),
    Header("History-Info", "", _LIST),
    Header("Identity", "y", _LIST),
    Header("In-Reply-To", "", _LIST),
    Header("Info-Package", "", _SINGLE),
    Header("Join", "", _SINGLE),
    Header("Max-Breadth", "", _SINGLE),
    Header("Min-Expires", "", _SINGLE),
    Header("Min-SE", "", _SINGLE),
    Header("Organization", "", _LINES),
    Header("P-Access-Network-Info", "", _LINES),
    Header("P-Asserted-Identity", "", _LIST),
    Header("P-Associated-URI", "", _LIST),
    Header("P-Called-Party-ID", "", _LINES),
    Header("P-Charging-Function-Addresses", "", _LINES),
    Header("P-Charging-Vector", "", _LINES),
    Header("P-Early-Media", "", _LIST),
    Header("P-Preferred-Identity", "", _LIST),
    Header("P-Visited-Network-ID", "", _LIST),
    Header("Path", "", _LIST),
    Header("Priority", "", _LINES),
    Header("Privacy", "", _LINES),
    Header("Proxy-Authenticate", "", _LINES),
    Header("Proxy-Authorization", "", _LINES),
    Header("Proxy-Require", "", _LIST),
    Header("RAck", "", _SINGLE),
    Header("Reason", "", _LIST),
    Header("Recv-Info", "", _LIST),
    Header("Refer-Sub", "", _LINES),
    Header("Refer-To", "r", _SINGLE),
    Header("Referred-By", "b", _SINGLE),
    Header("Reject-Contact", "j", _LIST),
    Header("Remote-Party-ID", "", _LIST),
    Header("Replaces", "", _SINGLE),
    Header("Reply-To", "", _LINES),
    Header("Request-Disposition", "d", _LIST),
    Header("Require", "", _LIST),
    Header("Resource-Priority", "", _LIST),
    Header("Retry-After", "", _LINES),
    Header("RSeq", "", _SINGLE),
    Header("Security-Client", "", _LIST),
    Header("Security-Server", "", _LIST),
    Header("Security-Verify", "", _LIST),
    Header("Server", "", _LINES),
    Header("Service-Route", "", _LIST),
    Header("Session-Expires", "x", _SINGLE),
    Header("Session-ID", "", _LINES),
    Header("SIP-ETag", "", _SINGLE),
    Header("SIP-If-Match", "", _SINGLE),
    Header("Subject", "s", _LINES),
    Header("Subscription-State", "", _SINGLE),
    Header("Supported", "k", _LIST),
    Header("Target-Dialog", "", _SINGLE),
    Header("Unsupported", "", _LIST),
    Header("User-Agent", "", _LINES),
    Header("User-to-User", "", _LIST),
    Header("Warning", "", _LIST),
    Header("WWW-Authenticate", "", _LINES),
)
