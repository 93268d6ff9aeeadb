"""What a routes module imports: ``from sbc.routing import Routes, Request, ...``."""

from sbc.b2bua.forking import by_q
from sbc.b2bua.subjects import Attempt, Target
from sbc.lookups.asking import HttpAnswer
from sbc.lookups.errors import HttpStatus, LookupFailed, LookupTimeout, LookupUnknown, ServerAway
from sbc.routing.call import Call, CallView, EstablishedCall
from sbc.routing.events import (
    CallAnswered,
    CallEnded,
    CallLifetime,
    MediaDtmf,
    MediaTimeout,
    NodeDraining,
    PhoneRegistered,
    TrunkState,
)
from sbc.routing.media import MediaRefused
from sbc.routing.messages import BadMessage, Branch, Failure, LocalRequest, Reply
from sbc.routing.node import Node, Peer
from sbc.routing.request import Request, Transfer
from sbc.routing.routes import RouteError, Routes
from sbc.routing.sdp import Sdp, Stream
from sbc.sip.address import NameAddr
from sbc.sip.uri import Uri, parse_uri

__all__ = [
    "Attempt",
    "BadMessage",
    "Branch",
    "Call",
    "CallAnswered",
    "CallEnded",
    "CallLifetime",
    "CallView",
    "EstablishedCall",
    "Failure",
    "HttpAnswer",
    "HttpStatus",
    "LocalRequest",
    "LookupFailed",
    "LookupTimeout",
    "LookupUnknown",
    "MediaDtmf",
    "MediaRefused",
    "MediaTimeout",
    "NameAddr",
    "Node",
    "NodeDraining",
    "Peer",
    "PhoneRegistered",
    "Reply",
    "Request",
    "RouteError",
    "Routes",
    "Sdp",
    "ServerAway",
    "Stream",
    "Target",
    "Transfer",
    "TrunkState",
    "Uri",
    "by_q",
    "parse_uri",
]
