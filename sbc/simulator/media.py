"""What media workers would answer: endpoints at the addresses of the realms, SRTP as the policies say, no packet."""

from __future__ import annotations

from collections.abc import Mapping

from media.protocol import Answer, Delete, Endpoint, Ice, Offer, Query, Reply, Request, Setup, Stream, StreamStats
from sbc.config.models import Realm

NODE = "simulated"
KEY = "1 AES_CM_128_HMAC_SHA1_80 inline:c2ltdWxhdGVkIGtleSB0aGF0IGhpZGVzIG5vdGhpbmch"  # of no use to anybody
FINGERPRINT = "sha-256 " + ":".join(["5B"] * 32)  # of no certificate
ICE = Ice("simulated", "simulatedsimulatedsimulated")


class MediaStandIn:
    """The sessions of one stage, each with the legs that have endpoints and what they offered."""

    def __init__(self, realms: Mapping[str, Realm]) -> None:
        self._realms = realms
        self._sessions: dict[str, dict[str, _Leg]] = {}
        self._ports = {name: realm.media.ports[0] for name, realm in realms.items()}

    @property
    def sessions(self) -> frozenset[str]:
        """Those that have not been deleted."""
        return frozenset(self._sessions)

    def answer(self, request: Request) -> Reply:
        """The reply to a request, as a media worker with room would give it."""
        match request:
            case Offer():
                return self._offer(request)
            case Answer():
                return self._answer(request)
            case Delete():
                return self._delete(request)
            case Query():
                return Reply(worker=NODE, stats=_stats(self._sessions.get(request.session, {})))
            case _:
                return Reply(worker=NODE)

    def _offer(self, request: Offer) -> Reply:
        for stream in request.streams:
            if stream.port and (why := _unusable(stream, request.from_srtp)):
                return Reply(ok=False, code="unsupported", reason=why, worker=NODE)
        legs = self._sessions.setdefault(request.session, {})
        sender = legs.setdefault(request.from_leg, _Leg(request.from_realm))
        receiver = legs.setdefault(request.to_leg, _Leg(request.to_realm))
        sender.streams, sender.is_secure = request.streams, request.from_srtp != "off"
        sender.is_dtls, sender.has_ice = request.from_srtp == "dtls", request.from_ice != "off"
        receiver.is_dtls, receiver.has_ice = request.to_srtp == "dtls", request.to_ice != "off"
        secure = request.to_srtp == "required"
        return Reply(worker=NODE, endpoints=[self._endpoint(receiver, i, s, secure) for i, s in _each(request.streams)])

    def _answer(self, request: Answer) -> Reply:
        legs = self._sessions.get(request.session, {})
        if request.from_leg not in legs or request.to_leg not in legs:
            return Reply(ok=False, code="unknown_leg", worker=NODE)
        receiver = legs[request.to_leg]
        if len(receiver.streams) != len(request.streams):
            return Reply(ok=False, code="malformed", reason="the answer has another number of streams", worker=NODE)
        endpoints = [
            self._endpoint(receiver, i, s, receiver.is_secure and _is_secure(receiver.streams[i]), "passive")
            for i, s in _each(request.streams)
        ]
        return Reply(worker=NODE, endpoints=endpoints)

    def _delete(self, request: Delete) -> Reply:
        legs = self._sessions.get(request.session, {})
        if request.leg:
            legs.pop(request.leg, None)
            return Reply(worker=NODE)
        self._sessions.pop(request.session, None)
        return Reply(worker=NODE, stats=_stats(legs))

    def _endpoint(self, leg: _Leg, index: int, stream: Stream, secure: bool, setup: Setup = "actpass") -> Endpoint:
        if not stream.port:
            return Endpoint("", 0, 0)
        media = self._realms[leg.realm].media
        while len(leg.ports) <= index:
            port = self._ports[leg.realm]
            self._ports[leg.realm] = port + 2 if port + 4 <= media.ports[1] else media.ports[0]
            leg.ports.append(port)
        port = leg.ports[index]
        address = str(media.advertise or media.address)
        if leg.is_dtls:
            ice = ICE if leg.has_ice else None
            return Endpoint(address, port, port, "UDP/TLS/RTP/SAVPF", ice=ice, fingerprint=FINGERPRINT, setup=setup)
        if secure == _is_secure(stream):
            return Endpoint(address, port, port + 1, "", [KEY] if secure else [])
        return Endpoint(address, port, port + 1, "RTP/SAVP" if secure else "RTP/AVP", [KEY] if secure else [])


class _Leg:
    __slots__ = ("has_ice", "is_dtls", "is_secure", "ports", "realm", "streams")

    def __init__(self, realm: str) -> None:
        self.realm = realm
        self.ports: list[int] = []
        self.streams: list[Stream] = []  # of its last offer
        self.is_secure = False  # whether it may have SRTP
        self.is_dtls = False
        self.has_ice = False


def _stats(legs: dict[str, _Leg]) -> dict[str, list[StreamStats]]:
    return {name: [StreamStats() for _ in leg.ports] for name, leg in legs.items()}


def _each(streams: list[Stream]) -> list[tuple[int, Stream]]:
    return list(enumerate(streams))


def _is_secure(stream: Stream) -> bool:
    return "SAVP" in stream.protocol.upper()


def _unusable(stream: Stream, policy: str) -> str:
    if _is_secure(stream):
        return "SRTP is off for this side" if policy == "off" else ""
    return "RTP is offered where SRTP is required" if policy == "required" and not stream.keys else ""
