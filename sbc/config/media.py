"""Media in the configuration: which workers relay, and how media of a peer are treated."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from media.protocol import IcePolicy, Srtp
from sbc.config.base import HOST, Model

LOCAL_SET = "local"  # the media workers of this node

MEDIA_URL = re.compile(rf"^tcp://(?:{HOST}):\d{{1,5}}$")
_CURVE_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")  # Z85 of 32 octets


def curve_key(value: str) -> str:
    """A CURVE public key as ``sbc media keygen`` prints it."""
    if not _CURVE_KEY.fullmatch(value):
        raise ValueError("not a CURVE public key: 40 characters, as sbc media keygen prints them")
    return value


class MediaMember(Model):
    """A member of a media set: the media workers of this node (``workers: local``), or one of another machine."""

    workers: Literal["local"] | None = None
    url: str = ""  # tcp://address:port of a media worker elsewhere
    key: str = ""  # its public key; needed unless it is on this machine
    weight: Annotated[int, Field(ge=0, le=1000)] = 1  # of each worker; 0: a spare, while no other answers

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if value and not MEDIA_URL.match(value):
            raise ValueError(f"{value!r} is not tcp://address:port, for example tcp://10.0.0.9:7700")
        return value

    @field_validator("key")
    @classmethod
    def _key(cls, value: str) -> str:
        return curve_key(value) if value else value

    @model_validator(mode="after")
    def _either(self) -> MediaMember:
        if (self.workers is None) == (not self.url):
            raise ValueError("name either workers: local, or the url of a media worker elsewhere")
        if self.url and not self.key and not ipaddress.ip_address(self.host).is_loopback:
            raise ValueError(f"{self.url} takes the key of that media node, as sbc media keygen prints it there")
        if self.key and not self.url:
            raise ValueError("a key is for a media worker elsewhere")
        return self

    @property
    def host(self) -> str:
        """The address of the url."""
        return self.name.rpartition(":")[0].strip("[]")

    @property
    def name(self) -> str:
        """What the worker at ``url`` is called in log, CDR and commands."""
        return self.url.removeprefix("tcp://")


def _codec(value: Any) -> Any:  # Any: whatever the YAML held
    if isinstance(value, str) and not re.fullmatch(r"[-A-Za-z0-9_.+]{1,40}(?:/[0-9]{1,6})?", value):
        raise ValueError(f"{value!r} is not the name of a codec, for example PCMA, opus or L16/44100")
    return value.lower() if isinstance(value, str) else value


Codec = Annotated[str, BeforeValidator(_codec)]


class Codecs(Model):
    """What offers keep of their codecs, whichever way they go. telephone-event and CN stay unless they are stripped."""

    allow: list[Codec] = []  # no others; empty: all
    strip: list[Codec] = []
    order: list[Codec] = []  # these first, the others as they were


class MediaProfile(Model):
    """How media of a peer are treated."""

    @field_validator("transcode", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:  # Any: whatever the YAML held
        return [one.lower() if isinstance(one, str) else one for one in value] if isinstance(value, list) else value

    # whose packets are heard: of the described address only; where that is a private one, also of the host of the
    # signalling or whoever is first; whoever is first. None: as the nat of the realm says
    latch: Literal["fixed", "signalled", "learn"] | None = None
    srtp: Srtp | None = None  # instead of that of the realm or peer; dtls: DTLS-SRTP (RFC 5763) and nothing else
    ice: IcePolicy = "off"  # lite, with srtp dtls: media go where checks come from, over rtcp-mux (RFC 8445)
    codecs: Codecs = Codecs()
    # codecs that this side is offered besides those of the other side, made of one of those: of PCMA, PCMU, G722, opus
    transcode: list[Literal["pcma", "pcmu", "g722", "opus"]] = []
    # digits that this side gets: as they come; as RFC 4733 events; as INFO (application/dtmf-relay)
    dtmf: Literal["pass", "rfc4733", "info"] = "pass"
    dscp: Annotated[int, Field(ge=0, le=63)] = 0  # of what is sent there; 46 is EF, expedited forwarding (RFC 3246)
    silence_s: Annotated[float | None, Field(ge=1, le=86400)] = None  # of the calls of a peer; None: as for all
    hold_silence_s: Annotated[float | None, Field(ge=1, le=86400)] = None  # the same while on hold; None: as for all
    one_way_s: Annotated[int | None, Field(ge=0, le=3600)] = None  # 0: never told
    music: str = ""  # a prompt that this side hears while the other one holds it; empty: what the other one sends
    record: Literal["off", "wav", "pcap"] = "off"  # its calls, from the answer on
    direct: bool = False  # no relay: both sides learn each other's media address


BUILT_IN_PROFILES: dict[str, MediaProfile] = {
    "default": MediaProfile(),
    "carrier": MediaProfile(latch="fixed"),
    "phone-behind-nat": MediaProfile(latch="learn"),
    "secure": MediaProfile(srtp="required"),
    "webrtc": MediaProfile(srtp="dtls", ice="lite"),
    "direct": MediaProfile(direct=True),
}


class MediaFiles(Model):
    """Where the media workers of this machine read announcements and write recordings; empty: they do not."""

    prompts: str = ""  # a directory of WAV files, which routes and profiles name relative to it
    recordings: str = ""  # a directory that is made when the first call is recorded


class MediaHealth(Model):
    """When a media worker gets no new calls any more, and when again."""

    probe_interval_s: Annotated[float, Field(ge=0.1, le=60)] = 2.0
    fall: Annotated[int, Field(ge=1, le=100)] = 2  # requests without an answer, one after the other
    rise: Annotated[int, Field(ge=1, le=100)] = 2  # answers, one after the other
    disable_s: Annotated[float, Field(ge=0, le=3600)] = 5.0  # and not before so long
