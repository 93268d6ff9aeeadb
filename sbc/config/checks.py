"""What no single value can tell: whether the parts of a configuration fit each other and this machine."""

from __future__ import annotations

import difflib
import ipaddress
import os
import pwd
import re
import ssl
from collections.abc import Iterable
from importlib.util import find_spec

from media.protocol import OPTIONAL_CODECS
from sbc.config import ha_checks, rule_checks
from sbc.config.matching import ambiguous, identity
from sbc.config.media import MediaProfile
from sbc.config.models import Config
from sbc.config.source import Path, Source, dotted
from sbc.config.store_url import Cluster, parse_store_url, tag_of
from sbc.errors import ConfigError

# Linux: struct sockaddr_un holds 108 octets with the final 0.
UNIX_PATH_MAX = 107
_TRANSPORT = re.compile(r";transport=([a-z]+)")
LONGEST_SOCKET_NAME = "/control.sock.0"


def cross_check(config: Config, read: Source) -> None:
    """Add to ``read`` every fault between values; the paths of ``config`` are absolute."""
    _listeners(config, read)
    _tls(config, read)
    _media_ports(config, read)
    _advertised(config, read)
    _peers(config, read)
    rule_checks.check(config, read)
    _media_sets(config, read)
    _media_profiles(config, read)
    _media_files(config, read)
    _place(config, read)
    _store(config, read)
    ha_checks.check(config, read)
    _lookups(config, read)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f", did you mean '{close[0]}'?"
    return f"; there is {', '.join(names)}" if 0 < len(names) <= 8 else ""


def _listeners(config: Config, read: Source) -> None:
    bound: dict[tuple[str, int, int], list[tuple[str, Path]]] = {}
    for realm, settings in config.realms.items():
        for index, listen in enumerate(settings.listen):
            path: Path = ("realms", realm, "listen", index)
            address = ipaddress.ip_address(listen.host)
            text = f"{listen.transport}:{f'[{address}]' if address.version == 6 else address}:{listen.port}"
            for other, where in bound.get((listen.transport, address.version, listen.port), []):
                if other == listen.host:
                    read.fault(path, f"{text} is taken by {dotted(where)}")
                elif address.is_unspecified or ipaddress.ip_address(other).is_unspecified:
                    read.fault(path, f"{text} overlaps with {dotted(where)}, as one of them listens on every address")
            bound.setdefault((listen.transport, address.version, listen.port), []).append((listen.host, path))
            if address.is_unspecified and settings.advertised(listen)[0] == listen.host:
                read.fault(path, f"{text} listens on every address, so the realm must say which one to advertise")
            if listen.advertise is not None and listen.advertise.version != address.version:
                read.fault(path, f"{text} is of IPv{address.version}, but {listen.advertise} is not")


def _tls(config: Config, read: Source) -> None:
    for realm, settings in config.realms.items():
        tls, path = settings.tls, ("realms", realm, "tls")
        if tls is None:
            for index, listen in enumerate(settings.listen):
                if listen.is_secure:
                    at: Path = ("realms", realm, "listen", index)
                    read.fault(at, f"{listen.transport} takes realms.{realm}.tls with certificate and key")
            continue
        if tls.verify == "peer" and not tls.ca:
            read.fault((*path, "verify"), "peer takes ca: the authorities whose clients may connect")
        _pair(tls.certificate, tls.key, path, read)
        taken: dict[str, int] = {}
        for index, one in enumerate(tls.by_name):
            at = (*path, "by_name", index)
            _pair(one.certificate, one.key, at, read)
            for name in one.names:
                other = taken.setdefault(name, index)
                if other != index:
                    read.fault((*at, "names"), f"{name} is a name of realms.{realm}.tls.by_name.{other} too")
        if tls.ca:
            reason = _unreadable(tls.ca)
            if reason:
                read.fault((*path, "ca"), f"cannot read {tls.ca}: {reason}")
                continue
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(tls.ca)
            except ssl.SSLError:
                read.fault((*path, "ca"), f"{tls.ca} holds no certificates")


def _pair(certificate: str, key: str, path: Path, read: Source) -> None:
    """A certificate and its key can be used."""
    usable = True
    for name, file in (("certificate", certificate), ("key", key)):
        reason = _unreadable(file)
        if reason:
            usable = False
            read.fault((*path, name), f"cannot read {file}: {reason}")
    if not usable:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        why = "the key is of another certificate" if error.reason == "KEY_VALUES_MISMATCH" else "no PEM"
        read.fault((*path, "certificate"), f"{certificate} and {key} do not fit: {why}")


def _unreadable(file: str) -> str:
    try:
        with open(file, "rb"):
            return ""
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _media_ports(config: Config, read: Source) -> None:
    workers = config.workers.media or len(os.sched_getaffinity(0))
    taken: list[tuple[str, str, int, int]] = []  # address, realm, low, high
    for realm, settings in config.realms.items():
        path: Path = ("realms", realm, "media", "ports")
        address, (low, high) = str(settings.media.address), settings.media.ports
        if settings.media.address.is_unspecified and settings.media.advertise is None:
            read.fault(("realms", realm, "media", "address"), "this is every address, so say which one to advertise")
        pairs = (high + 1 - (low + low % 2)) // 2  # RTP on the even port, RTCP on the next (RFC 3550 §11)
        if pairs < workers:
            read.fault(path, f"{low}-{high} has room for {pairs} streams, too few for {workers} media workers")
        for other_address, other, other_low, other_high in taken:
            if address == other_address and low <= other_high and other_low <= high:
                read.fault(
                    path,
                    f"{low}-{high} overlaps with {other_low}-{other_high} of realms.{other}.media.ports "
                    f"on the same address {address}",
                )
        taken.append((address, realm, low, high))
        for name, listen in config.listeners:
            if listen.host == address and low <= listen.port <= high:
                read.fault(path, f"{low}-{high} covers port {listen.port}, on which realms.{name} listens for SIP")


def _advertised(config: Config, read: Source) -> None:
    for realm, settings in config.realms.items():
        families = {ipaddress.ip_address(listen.host).version for listen in settings.listen}
        if settings.advertise is not None and settings.advertise.version not in families:
            read.fault(
                ("realms", realm, "advertise"),
                f"{settings.advertise} is IPv{settings.advertise.version}, "
                f"but the realm listens on IPv{families.pop()} only",
            )
        media = settings.media
        if media.advertise is not None and media.advertise.version != media.address.version:
            read.fault(
                ("realms", realm, "media", "advertise"),
                f"{media.advertise} is IPv{media.advertise.version}, but the address is IPv{media.address.version}",
            )


def _peers(config: Config, read: Source) -> None:
    owners: dict[tuple[str, str], list[str]] = {}
    for name, peer in config.peers.items():
        path: Path = ("peers", name)
        if peer.realm not in config.realms:
            known = _did_you_mean(peer.realm, config.realms)
            read.fault((*path, "realm"), f"no realm is called '{peer.realm}'{known}")
        elif peer.gateway:
            wanted = _TRANSPORT.search(peer.gateway.lower())
            transports = {listen.transport for listen in config.realms[peer.realm].listen}
            if wanted is not None and wanted[1] not in transports:
                read.fault((*path, "gateway"), f"realms.{peer.realm} has no {wanted[1]} listener to call it by")
        if peer.calls_to:
            target = config.peers.get(peer.calls_to)
            if target is None:
                known = _did_you_mean(peer.calls_to, config.peers)
                read.fault((*path, "calls_to"), f"no peer is called '{peer.calls_to}'{known}")
            elif not target.gateway:
                read.fault((*path, "calls_to"), f"peers.{peer.calls_to} has no gateway to send calls to")
        _registration(config, name, read)
        _match(config, name, read)
        for index, network in enumerate(peer.addresses):
            others = owners.setdefault((peer.realm, str(network)), [])
            for owner in others:
                if owner != name and ambiguous(config.peers[owner].match, peer.match):
                    at = (*path, "addresses", index)
                    said = f"{network} belongs to peers.{owner} in the same realm"
                    if peer.match is not None:
                        said += ", and what both match could be the same message"
                    read.fault(at if read.has(at) else at[:-1], said)
            others.append(name)


def _match(config: Config, name: str, read: Source) -> None:
    """Whether what a peer must come by can be in its realm."""
    peer = config.peers[name]
    match, realm = peer.match, config.realms.get(peer.realm)
    if match is None or realm is None:
        return
    path: Path = ("peers", name, "match")
    known = {listen.text: listen.transport for listen in realm.listen}
    for listener in match.listeners:
        if listener not in known:
            read.fault((*path, "listeners"), f"realms.{peer.realm} has no '{listener}'{_did_you_mean(listener, known)}")
    for transport in match.transports:
        if transport not in known.values():
            read.fault((*path, "transports"), f"realms.{peer.realm} has no {transport} listener")
    if match.certificate and (realm.tls is None or realm.tls.verify != "peer"):
        read.fault((*path, "certificate"), f"realms.{peer.realm}.tls must ask for it: verify: peer")
    for other_name, other in config.peers.items():
        if other_name != name and other.match is not None and other.realm == peer.realm:
            for one in match.certificate:
                for two in other.match.certificate:
                    if one != two and identity(peer.realm, one) == identity(peer.realm, two):
                        read.fault((*path, "certificate"), f"'{one}' and '{two}' of {other_name} have the same number")


def _media_sets(config: Config, read: Source) -> None:
    for name, members in config.media_sets.items():
        path: Path = ("media_sets", name)
        if not any(member.weight for member in members):
            read.fault(path, "every member is a spare (weight 0), so there is nothing to be a spare for")
        seen: set[str] = set()
        for index, member in enumerate(members):
            if (one := member.url or "workers: local") in seen:
                read.fault((*path, index), f"{one} is in this set already")
            seen.add(one)
    keys: dict[str, str] = {}
    for name, members in config.media_sets.items():
        for index, member in enumerate(members):
            if member.url and keys.setdefault(member.url, member.key) != member.key:
                read.fault(("media_sets", name, index), f"{member.url} has another key in another set")
    chosen = [(("realms", name, "media_set"), realm.media_set) for name, realm in config.realms.items()]
    chosen += [(("peers", name, "media_set"), peer.media_set) for name, peer in config.peers.items() if peer.media_set]
    for path, wanted in chosen:
        if wanted not in config.media_sets:
            read.fault(path, f"no media set is called '{wanted}'{_did_you_mean(wanted, config.media_sets)}")


def _media_files(config: Config, read: Source) -> None:
    """What our own media workers are to play and record; those elsewhere have directories of their own."""
    prompts, recordings = config.media.prompts, config.media.recordings
    if prompts and not os.path.isdir(prompts):
        read.fault(("media", "prompts"), f"there is no directory {prompts}")
        return
    elsewhere = any(member.url for members in config.media_sets.values() for member in members)
    for name, profile in config.media_profiles.items():
        path: Path = ("media_profiles", name)
        if profile.record != "off" and not recordings and not elsewhere:
            read.fault((*path, "record"), "media: recordings names no directory to record into")
        if not profile.music:
            continue
        if profile.music.startswith("/") or ".." in profile.music.split("/"):
            read.fault((*path, "music"), f"'{profile.music}' is not a name below media: prompts")
        elif prompts and not os.path.isfile(os.path.join(prompts, profile.music)) and not elsewhere:
            read.fault((*path, "music"), f"there is no file {os.path.join(prompts, profile.music)}")
        elif not prompts and not elsewhere:
            read.fault((*path, "music"), "media: prompts names no directory of files to play")


def _media_profiles(config: Config, read: Source) -> None:
    for name, peer in config.peers.items():
        path: Path = ("peers", name, "profile")
        if peer.profile not in config.media_profiles:
            known = _did_you_mean(peer.profile, config.media_profiles)
            read.fault(path, f"no media profile is called '{peer.profile}'{known}")
        elif peer.srtp is not None and config.media_profiles[peer.profile].srtp not in (None, peer.srtp):
            wanted = config.media_profiles[peer.profile].srtp
            read.fault(("peers", name, "srtp"), f"the media profile '{peer.profile}' says '{wanted}': say it once")
        else:
            _end_to_end(config, name, read)
    for name, profile in config.media_profiles.items():
        if profile.direct and profile != MediaProfile(direct=True):
            read.fault(("media_profiles", name), "with direct: true we relay nothing, so nothing else can be said here")
        if profile.ice == "lite" and profile.srtp != "dtls":
            read.fault(("media_profiles", name, "ice"), "ICE is for browsers, which speak DTLS-SRTP: add srtp: dtls")
        if profile.ice == "lite" and profile.latch is not None:
            read.fault(("media_profiles", name, "latch"), "with ice: lite media go where its checks come from")
        _processing(name, profile, read)
        for codec in sorted({*profile.codecs.allow, *profile.codecs.order}.intersection(profile.codecs.strip)):
            read.fault(
                ("media_profiles", name, "codecs"), f"{codec} is stripped, so it cannot be in allow or order too"
            )


def _processing(name: str, profile: MediaProfile, read: Source) -> None:
    """Whether what is to be done with payloads can be done."""
    if (profile.transcode or profile.dtmf != "pass") and profile.srtp == "pass":
        key = "transcode" if profile.transcode else "dtmf"
        read.fault(("media_profiles", name, key), "with srtp: pass only the two ends can read media")
    for codec, (module, package) in OPTIONAL_CODECS.items():
        if codec.lower() in profile.transcode and find_spec(module) is None:
            read.fault(
                ("media_profiles", name, "transcode"),
                f"{codec} is not built: install the Debian package {package} and run ./dev setup",
            )


def _end_to_end(config: Config, name: str, read: Source) -> None:
    """Where a call is not relayed, both sides must speak the same: a browser and a plain phone do not."""
    peer = config.peers[name]
    other = config.peers.get(peer.calls_to)
    if other is None or not config.media_profiles[peer.profile].direct:
        return
    called = config.media_profiles.get(other.profile)
    if called is not None and called.ice == "lite":
        read.fault(
            ("peers", name, "profile"),
            f"'{peer.profile}' relays no media, but peers.{peer.calls_to} has '{other.profile}' and needs it",
        )


def _registration(config: Config, name: str, read: Source) -> None:
    peer = config.peers[name]
    path: Path = ("peers", name, "register")
    asked = peer.registration
    if asked is None:
        return
    if not asked.registrar and not peer.gateway:
        read.fault(path, f"name the registrar, as peers.{name} has no gateway to take it from")
    if not asked.aor and peer.auth is None:
        read.fault(path, f"name the aor, as peers.{name} has no auth to take the user from")
    if "@" in asked.registrar:
        read.fault((*path, "registrar"), f"'{asked.registrar}' has a user part, which belongs into aor")
    wanted = _TRANSPORT.search((asked.proxy or asked.registrar).lower())
    realm = config.realms.get(peer.realm)
    if wanted is not None and realm is not None and wanted[1] not in {listen.transport for listen in realm.listen}:
        key = "proxy" if asked.proxy else "registrar"
        read.fault((*path, key), f"realms.{peer.realm} has no {wanted[1]} listener to register by")


def _place(config: Config, read: Source) -> None:
    longest = config.run_dir + LONGEST_SOCKET_NAME
    if len(os.fsencode(longest)) > UNIX_PATH_MAX:
        most = UNIX_PATH_MAX - len(LONGEST_SOCKET_NAME)
        read.fault(("run_dir",), f"{config.run_dir} is too long for the Unix sockets in it: at most {most} octets")
    if config.routes:
        _routes(config.routes, read)
    for number, path in enumerate(config.routes_tests):
        if not os.path.exists(path):
            read.fault(("routes_tests", number), f"there is no {path}")
    if config.user:
        try:
            pwd.getpwnam(config.user)
        except KeyError:
            read.fault(("user",), f"there is no user '{config.user}' on this machine: useradd --system {config.user}")
    if config.management.metrics:
        host, colon, port = config.management.metrics.rpartition(":")
        try:
            ipaddress.ip_address(host.strip("[]"))
            usable = bool(colon) and 1 <= int(port) <= 65535
        except ValueError:
            usable = False
        if not usable:
            read.fault(
                ("management", "metrics"),
                f"'{config.management.metrics}' is not address:port, for example 127.0.0.1:9090",
            )


def _routes(path: str, read: Source) -> None:
    try:
        with open(path, "rb") as file:
            compile(file.read(), path, "exec")
    except OSError as error:
        read.fault(("routes",), f"cannot read {path}: {(error.strerror or str(error)).lower()}")
    except (SyntaxError, ValueError) as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        read.fault(("routes",), f"{path} is not Python{line}: {getattr(error, 'msg', error)}")


def _store(config: Config, read: Source) -> None:
    if config.store != "none":
        try:
            parse_store_url(config.store, config.run_dir)
        except ConfigError as error:
            read.fault(("store",), error.faults[0].removeprefix("store: "))
    if ":" not in config.database:
        read.fault(("database",), f"'{config.database}' is not a database URL, for example sqlite:///sbc.db")


def _lookups(config: Config, read: Source) -> None:
    lookups = config.lookups
    if lookups.http is not None and lookups.http.ca and (reason := _unreadable(lookups.http.ca)):
        read.fault(("lookups", "http", "ca"), f"cannot read {lookups.http.ca}: {reason}")
    for name, redis in lookups.redis.items():
        if redis.url.get_secret_value() == "store" and config.store == "none":
            read.fault(("lookups", "redis", name), "this node has no store of its own: write the url of another one")
            continue
        url = redis.url.get_secret_value()
        try:
            address = parse_store_url(config.store if url == "store" else url, config.run_dir)
        except ConfigError as error:
            if url != "store":
                read.fault(("lookups", "redis", name, "url"), error.faults[0].removeprefix("store: "))
            continue
        if isinstance(address.via, Cluster) and not tag_of(redis.prefix):
            text = "in a cluster all keys must be in one slot: put a hash tag into the prefix, for example '{routes}:'"
            read.fault(("lookups", "redis", name, "prefix"), text)
