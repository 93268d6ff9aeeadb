"""From the configuration to what the core must know."""

from __future__ import annotations

from collections.abc import Callable

from sbc.b2bua.effects import RouteKind
from sbc.b2bua.settings import (
    AdmissionPolicy,
    CoreSettings,
    ListenerSettings,
    MediaProfile,
    MediaProfiles,
    RealmSettings,
    SrtpPolicies,
    no_source_address,
)
from sbc.clock import boot
from sbc.config.media import MediaProfile as Given
from sbc.config.models import Config, Peer
from sbc.dialog.session_timer import Policy as SessionTimers
from sbc.policy import reply_codes, wire
from sbc.policy.media_targets import targets_by_realm
from sbc.sdp.codecs import CodecFilter
from sbc.sdp.negotiate import Wish
from sbc.services.keep_alive import KeepAliveSettings
from sbc.services.trunk_registration import TrunkSettings
from sbc.sip.digest import Credentials
from sbc.sip.uri import parse_uri


def keep_alive_settings(config: Config) -> list[KeepAliveSettings]:
    """Every realm whose phones are pinged."""
    return [
        KeepAliveSettings(name, asked.method, asked.interval_s, asked.misses, asked.only_nated)
        for name, realm in config.realms.items()
        if (asked := realm.keep_alive) is not None
    ]


def trunk_settings(config: Config) -> list[TrunkSettings]:
    """Every peer at which this node registers."""
    found = []
    for name, peer in config.peers.items():
        asked = peer.registration
        if asked is None:
            continue
        # The path says how to get there, and the domain who is there: a Request-URI has no user and no transport, what
        # is registered no port either.
        path = asked.proxy or asked.registrar or peer.gateway
        domain = parse_uri(asked.registrar or peer.gateway)._replace(user=None, password=None, params={})
        user = peer.auth.username if peer.auth is not None else None
        aor = asked.aor or str(domain._replace(scheme="sip", user=user, port=None))
        found.append(
            TrunkSettings(
                name,
                peer.realm,
                str(domain),
                path,
                aor,
                asked.contact_user or parse_uri(aor).user or name,
                asked.expires_s,
                _credentials(peer),
            )
        )
    return found


def _credentials(peer: Peer) -> Credentials | None:
    auth = peer.auth
    return None if auth is None else Credentials(auth.username, auth.password.get_secret_value(), auth.realm)


def core_settings(
    config: Config,
    shard_key: bytes,
    admission: AdmissionPolicy,
    routes: frozenset[RouteKind],
    source_address: Callable[[str], str] = no_source_address,
    *,
    slot: int = 0,
    slots: int = 1,
) -> CoreSettings:
    """The core's view of ``config``: listeners in their order, realms, timers, and who may speak."""
    listeners = []
    for name, listen in config.listeners:
        seen = config.realms[name].advertised(listen)
        listeners.append(ListenerSettings(name, listen.transport, listen.host, listen.port, *seen))
    timers = config.timers
    return CoreSettings(
        node=config.node,
        listeners=tuple(listeners),
        realms={
            name: RealmSettings(
                name,
                trusted=realm.trusted,
                user_agent=realm.user_agent,
                nat=realm.nat,
                reliable=realm.reliable_provisionals,
                preferred_identity=realm.preferred_identity,
                remote_party_id=realm.remote_party_id,
                pass_headers=tuple(realm.pass_headers),
                datagram_max_bytes=realm.udp_request_max_bytes,
                answers_to_via=realm.answers_to == "via",
            )
            for name, realm in config.realms.items()
        },
        admission=admission,
        shard_key=shard_key,
        unknown_sources=config.unknown_sources,
        routes=routes,
        media_targets=targets_by_realm(config.realms),
        media_profiles=_profiles(config),
        srtp=_srtp(config),
        t1_s=timers.t1_ms / 1000,
        t2_s=timers.t2_ms / 1000,
        t4_s=timers.t4_ms / 1000,
        timer_c_s=timers.invite_timeout_s,
        dialog_lifetime_s=float(timers.dialog_lifetime_s),
        setup_record_after_s=0.0 if config.store == "none" else timers.setup_record_after_ms / 1000,
        ping_interval_s=float(timers.ping_interval_s),
        ping_method=timers.ping_method,
        follow_redirects={
            name: peer.follow_redirects for name, peer in config.peers.items() if peer.follow_redirects != "never"
        },
        credentials={
            name: credentials for name, peer in config.peers.items() if (credentials := _credentials(peer)) is not None
        },
        source_address=source_address,
        registration_required=frozenset(
            name for name, peer in config.peers.items() if peer.registration is not None and peer.registration.required
        ),
        boot=boot(),
        slot=slot,
        slots=slots,
        transfers={name: peer.transfers for name, peer in config.peers.items()},
        wire=wire.policies(config),
        replies=reply_codes.policies(config),
        session_timers=SessionTimers(timers.session_expires_s, timers.min_se_s),
    )


def _profiles(config: Config) -> MediaProfiles:
    """Those that ask for something: calls under the others do not ask."""
    named = {
        name: profile for name, given in config.media_profiles.items() if (profile := _profile(given)) != MediaProfile()
    }
    return MediaProfiles(
        named, {name: named[peer.profile] for name, peer in config.peers.items() if peer.profile in named}
    )


def _profile(given: Given) -> MediaProfile:
    codecs = given.codecs
    wanted = CodecFilter(frozenset(codecs.allow), frozenset(codecs.strip), tuple(codecs.order))
    return MediaProfile(
        given.latch or "",
        given.srtp,
        given.silence_s or 0.0,
        given.hold_silence_s or 0.0,
        -1.0 if given.one_way_s == 0 else float(given.one_way_s or 0),
        given.dscp,
        None if wanted == CodecFilter() else wanted,
        Wish(tuple(given.transcode), given.dtmf),
        given.ice,
        given.music,
        given.record,
    )


def _srtp(config: Config) -> SrtpPolicies | None:
    """None where nobody has SRTP: calls then never ask."""
    realms = {name: realm.media.srtp for name, realm in config.realms.items()}
    peers = {name: peer.srtp for name, peer in config.peers.items() if peer.srtp is not None}
    said = {*realms.values(), *peers.values()}
    return SrtpPolicies(realms, peers, "dtls" in said) if said != {"off"} else None
