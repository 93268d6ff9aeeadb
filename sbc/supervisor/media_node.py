"""A node of media workers alone, for other machines (``sbc media run``): the same supervisor, with fewer children."""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from media.config import Curve, MediaConfig
from sbc.config.models import Config, MediaNode, Realm, RealmMedia, Timers, Workers
from sbc.errors import ConfigError
from sbc.supervisor import folders, process
from sbc.supervisor.child import Group
from sbc.supervisor.keeper import keep
from sbc.supervisor.kept import Kept
from sbc.supervisor.members import Entries, Estate, Member, media_segment
from sbc.supervisor.supervisor import OOM_SCORE, Supervisor
from sbc.telemetry import log


def run(given: MediaNode) -> int:
    """Run until told to stop; returns the exit code. Raises ConfigError before anything was started."""
    log.configure(given.log.level, given.log.format, "keeper")
    config = as_config(given)
    folders.prepare(config)
    lock = folders.Lock(config.run_dir)
    process.raise_file_limit()
    process.oom_score(OOM_SCORE)
    public, secret = folders.media_keys(config.state_dir)
    estate = MediaEstate(given, config, secret)
    key = public.decode() if given.clients else "none: loopback only"
    try:
        return keep(
            estate, lock, lambda kept, served: MediaSupervisor(estate, kept, served, key).serve(), kind="media "
        )
    finally:
        estate.close()


def as_config(given: MediaNode) -> Config:
    """What a supervisor wants to know, of a node without SIP. Everything in it was validated in ``given``."""
    realms = {
        name: Realm.model_construct(
            listen=[],
            nat=realm.nat,
            media=RealmMedia(address=realm.address, advertise=realm.advertise, ports=realm.ports),
        )
        for name, realm in given.realms.items()
    }
    return Config.model_construct(
        node=given.node,
        run_dir=given.run_dir,
        state_dir=given.state_dir,
        user=given.user,
        workers=Workers(sip=1, media=given.workers),
        store="none",
        realms=realms,
        media=given.media,
        timers=Timers(
            media_silence_s=given.media_silence_s,
            media_hold_silence_s=given.media_hold_silence_s,
            media_one_way_s=given.media_one_way_s,
            drain_timeout_s=0.0,
        ),
        log=given.log,
    )


class MediaEstate(Estate):
    """Media workers only, with their control on TCP."""

    def __init__(self, given: MediaNode, config: Config, secret: bytes) -> None:
        from media.worker import run as run_media

        # the calls are elsewhere, and outlive us
        super().__init__(config, "", b"", Entries(_nobody, run_media, _nobody, media_segment()), lasting=True)
        self.members = [member for member in self.members if member.group is Group.MEDIA]
        host, port = given.address
        host = f"[{host}]" if ":" in host else host
        self.media_endpoints = {f"media-{slot}": f"tcp://{host}:{port + slot}" for slot in range(self.media_count)}
        self._curve = Curve(secret, frozenset(key.encode() for key in given.clients)) if given.clients else None

    def _media_config(self, member: Member) -> MediaConfig:
        return replace(super()._media_config(member), curve=self._curve)


def _nobody(_: object) -> NoReturn:
    raise ConfigError(["a media node has media workers only"])


class MediaSupervisor(Supervisor):
    """Says where the workers are and by which key they are known; takes changes by a restart."""

    def __init__(self, estate: MediaEstate, kept: Kept, served: bool, key: str) -> None:
        super().__init__(estate, kept, served)
        self._key = key

    def _serving(self) -> None:
        endpoints = list(self.estate.media_endpoints.values())
        self.estate.page.ready()
        self._log.info("serving", urls=endpoints, key=self._key, media=self.estate.media_count)
        self._notify.ready(f"serving media on {', '.join(endpoints)}")

    def _reload(self) -> None:
        self._log.warning("a media node takes changes of its configuration by a restart")
