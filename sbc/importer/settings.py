"""The configuration that a script's parameters and addresses make."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from sbc.importer.peers import Peers
from sbc.importer.report import Report
from sbc.importer.tree import ModuleParameter, Script, Setting

_LISTEN: Final = re.compile(
    r"^(?:(?P<transport>udp|tcp|tls|wss?|sctp|hep_udp|hep_tcp|bin|bins|smpp):)?(?P<host>\[[0-9a-fA-F:.]+\]|\*|[\w.-]+)"
    r"(?::(?P<port>\d{1,5}))?(?P<rest>(?:\s+.*)?)$",
    re.IGNORECASE,
)
_AS: Final = re.compile(r"\bas\s+(?P<host>\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?", re.IGNORECASE)
MEDIA_PORTS: Final = ((30000, 39999), (40000, 49999), (20000, 29999), (50000, 59999))
_PRIVATE: Final = tuple(
    ipaddress.ip_network(one)
    for one in (
        *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("fc00::/7", "fe80::/10", "::1/128"),
    )
)
_ON: Final = frozenset({"1", "yes", "on", "true", "enable"})

# What the SBC does or has anyway, with the reason for the report.
_BY_ITSELF: Final = {
    "mhomed": "the listener by which the other side is reached is chosen for each request",
    "auto_aliases": "the addresses of the listeners are known to be ours",
    "fork": "there is a supervisor with workers",
    "children": "workers: auto starts one per processor",
    "udp_workers": "workers: auto starts one per processor",
    "udp_children": "workers: auto starts one per processor",
    "tcp_workers": "workers: auto starts one per processor",
    "tcp_children": "workers: auto starts one per processor",
    "mpath": "there are no modules to be found",
    "log_stderror": "the log goes to the standard error output",
    "stderror_enabled": "the log goes to the standard error output",
    "syslog_enabled": "the log goes to the standard error output, which the service manager keeps",
    "log_facility": "the log goes to the standard error output, which the service manager keeps",
    "syslog_facility": "the log goes to the standard error output, which the service manager keeps",
    "log_name": "the log goes to the standard error output, which the service manager keeps",
    "syslog_name": "the log goes to the standard error output, which the service manager keeps",
    "xlog_level": "the lines of routes have the levels of all others",
    "xlog_force_color": "the log has no colours",
    "memdump": "memory is Python's",
    "memlog": "memory is Python's",
    "check_via": "answers go to where the request came from",
    "dns": "names are looked up where a gateway is one",
    "rev_dns": "addresses are never looked up",
    "server_signature": "realms.*.user_agent is empty: nothing is said",
    "disable_503_translation": "each side gets the answer of the route",
    "user": "say it under 'user' in the configuration if workers are to run as another account",
    "group": "workers have the groups of their user",
}
# Modules whose work is done by the SBC itself, or whose functions are mapped one by one.
_MODULES: Final = frozenset(
    {
        *("tm", "sl", "rr", "maxfwd", "sipmsgops", "textops", "signaling", "nathelper", "nat_traversal", "rtpproxy"),
        *("rtpengine", "rtp_relay", "mi_fifo", "mi_datagram", "mi_http", "mi_xmlrpc_ng", "httpd", "xlog", "uri"),
        *("proto_udp", "proto_tcp", "proto_tls", "proto_ws", "proto_wss", "dialog", "cfgutils", "avpops", "options"),
        *("sst", "topology_hiding", "statistics", "acc", "tls_openssl", "tls_wolfssl", "mathops"),
    }
)


@dataclass(frozen=True, slots=True)
class Listener:
    """One usable ``listen`` line."""

    transport: str
    host: str
    port: int
    advertise: str  # address[:port], '' for none
    line: int

    @property
    def text(self) -> str:
        """As the configuration writes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}:{host}:{self.port}" + (f" as {self.advertise}" if self.advertise else "")


@dataclass(slots=True)
class Realm:
    """Listeners of one network."""

    name: str
    network: ipaddress.IPv4Network | ipaddress.IPv6Network
    listeners: list[Listener] = field(default_factory=list)


class Settings:
    """The parameters of a script, and the text of the configuration that they make."""

    def __init__(self, script: Script, report: Report) -> None:
        self._script = script
        self._report = report
        self.log_level = "info"
        self.user_agent = ""
        self.invite_timeout_s = 0
        self._advertised = ""
        self._port = 5060
        self.listeners: list[Listener] = []
        for setting in script.settings:
            if setting.name == "port":
                self._take_port(setting)
        for setting in script.settings:
            self._setting(setting)
        for include in script.includes:
            report.unmapped(include.line, "this file is not read: put its text in its place, and import again")
        for module in script.modules:
            if module.name in _MODULES:
                report.itself(module.line, "what it does is done by the SBC, or mapped function by function")
            else:
                report.unmapped(module.line, f"nothing is imported that would do what module {module.name} does")
        for parameter in script.parameters:
            self._parameter(parameter)
        self.realms = self._realms()

    @property
    def own(self) -> tuple[str, ...]:
        """The addresses that the node listens on."""
        return tuple(dict.fromkeys(one.host for one in self.listeners))

    # Reading

    def _take_port(self, setting: Setting) -> None:
        if setting.value.isdigit() and 0 < int(setting.value[:6]) < 65536:
            self._port = int(setting.value)
        else:
            self._report.unmapped(setting.line, "this is no port")

    def _setting(self, setting: Setting) -> None:
        report, name, value = self._report, setting.name, setting.value
        if name in ("listen", "socket", "bind", "udp_listener", "tcp_listener"):
            self._listen(setting)
        elif name == "port":
            pass
        elif name in ("debug", "log_level"):
            self._level(setting)
        elif name == "advertised_address":
            if _address(value) is None:
                report.unmapped(setting.line, "a realm advertises an address, not a name")
            else:
                self._advertised = value
        elif name in ("server_header", "user_agent_header"):
            self.user_agent = value.partition(":")[2].strip() or value
        elif name == "alias":
            report.unmapped(setting.line, "a request is for us when its host is an address of ours, not by a name")
        elif name == "fork" and value.lower() not in _ON:
            report.unmapped(setting.line, "there is always a supervisor with workers")
        elif name in ("disable_tcp", "disable_tls"):
            report.itself(setting.line, "the configuration names what is listened on")
        elif name in _BY_ITSELF:
            report.itself(setting.line, _BY_ITSELF[name])
        else:
            report.unmapped(setting.line, f"the configuration has nothing that stands for '{name}'")

    def _level(self, setting: Setting) -> None:
        try:
            level = int(setting.value)
        except ValueError:
            self._report.unmapped(setting.line, "this is no level")
            return
        self.log_level = "error" if level < 1 else "warning" if level == 1 else "info" if level < 4 else "debug"

    def _listen(self, setting: Setting) -> None:
        report, line = self._report, setting.line
        match = _LISTEN.match(setting.value.strip("\"'"))
        if match is None:
            return report.unmapped(line, "this is not transport:address:port")
        transport = (match["transport"] or ("tcp" if setting.name == "tcp_listener" else "udp")).lower()
        host = _address(match["host"])
        port = int(match["port"] or (5061 if transport == "tls" else self._port))
        if transport not in ("udp", "tcp", "tls", "ws", "wss"):
            return report.unmapped(line, f"the SBC does not listen for {transport}")
        if host is None or ipaddress.ip_address(host).is_unspecified:
            return report.unmapped(line, "name the address itself: a realm has no interface, no name and no '*'")
        if not 0 < port < 65536:
            return report.unmapped(line, f"{port} is no port")
        if transport in ("tls", "wss"):
            where = f"{transport}:{host}:{port}"
            return report.unmapped(line, f"add {where} to its realm, with tls: {{ certificate: …, key: … }}")
        advertise, rest = "", match["rest"]
        seen = _AS.search(rest)
        if seen is not None:
            rest = rest[: seen.start()] + rest[seen.end() :]
            if _address(seen["host"]) is None:
                report.unmapped(line, f"a listener advertises an address, which '{seen['host']}' is not")
            else:
                advertise = seen["host"] + (f":{seen['port']}" if seen["port"] else "")
        if rest.strip():
            report.assumed(line, f"'{rest.strip()}' has no counterpart: workers serve all listeners")
        one = Listener(transport, host, port, advertise, line)
        if any((other.transport, other.host, other.port) == (transport, host, port) for other in self.listeners):
            return report.itself(line, "this is listened on already")
        self.listeners.append(one)
        return None

    def _parameter(self, parameter: ModuleParameter) -> None:
        report, line, module, name = self._report, parameter.line, parameter.module, parameter.name
        if module == "tm" and name in ("fr_inv_timer", "fr_inv_timeout"):
            if parameter.value.isdigit() and 0 < int(parameter.value[:6]) <= 86_400:
                self.invite_timeout_s = int(parameter.value)
            else:
                report.unmapped(line, "this is no number of seconds")
        elif module == "tm" and name in ("onreply_avp_mode", "auto_inv_100trying", "wt_timer", "disable_6xx_block"):
            report.itself(line, "the SBC has nothing of the kind to be told")
        elif module in ("rtpproxy", "rtpengine") and "sock" in name:
            report.itself(line, "media are relayed by the media workers of the SBC; others are members of a media set")
        elif (
            module == "rr"
            or name in ("fifo_name", "fifo_mode", "socket_name")
            or module in ("sl", "maxfwd", "signaling")
        ):
            report.itself(line, "the SBC has nothing of the kind to be told")
        elif module == "acc":
            report.itself(line, "every call has its record; see cdr in the configuration")
        else:
            report.unmapped(line, f"the configuration has nothing that stands for '{name}' of {module}")

    # Realms

    def _realms(self) -> list[Realm]:
        found: list[Realm] = []
        for one in self.listeners:
            bits = 24 if "." in one.host else 64
            network = ipaddress.ip_network(f"{one.host}/{bits}", strict=False)
            realm = next((realm for realm in found if realm.network == network), None)
            if realm is None:
                realm = Realm("net-" + re.sub(r"[.:]+", "-", one.host).strip("-"), network)
                found.append(realm)
            realm.listeners.append(one)
        if len(found) > 1:
            for realm in found:
                line = realm.listeners[0].line
                self._report.assumed(line, f"this is realm {realm.name}: addresses of one /24 or /64 are one network")
        return found

    def realm_of(self, address: str) -> tuple[Realm, bool]:
        """The realm that an address is in, and whether that is sure: there is no other, or it is in its network."""
        one = ipaddress.ip_network(address).network_address
        for realm in self.realms:
            if one in realm.network:
                return realm, True
        same = [realm for realm in self.realms if realm.network.version == one.version] or self.realms

        def common(realm: Realm) -> int:
            return one.max_prefixlen - (int(realm.network.network_address) ^ int(one)).bit_length()

        def like(realm: Realm) -> bool:
            seen = any(listener.advertise for listener in realm.listeners)
            return not is_private(str(one)) if seen else is_private(realm.listeners[0].host) == is_private(str(one))

        return max([realm for realm in same if like(realm)] or same, key=common), len(self.realms) == 1

    # Writing

    def yaml(self, peers: Peers) -> str:
        """The configuration, with the lines of the script that each part is from."""
        out = [f"# Made from {self._script.file}; what could not be mapped is in report.txt.", ""]
        out += ["node: sbc1", "workers: { sip: auto, media: auto }", "routes: routes.py", "", "realms:"]
        if not self.realms:
            self._report.unmapped(1, "no address to listen on could be mapped: the configuration listens on 127.0.0.1")
            out += ["  here: # no listen line could be mapped: put the addresses of this node in", "    listen:"]
            out += ["      - udp:127.0.0.1:5060", "    media: { address: 127.0.0.1 }"]
        for realm in self.realms:
            out += self._realm(realm)
        if peers.peers:
            out += ["", "peers:"]
            for peer in peers.peers:
                out += self._peer(peer.name, peer.addresses, peer.direction, peer.lines, peer.gateway)
        for name in peers.names:
            self._report.unmapped(
                name.line, f"add a peer with gateway: {name.uri} and the addresses that this name stands for"
            )
            out.append(f"  # line {name.line}: {name.host}: {{ realm: …, addresses: […], gateway: {name.uri} }}")
        if self.invite_timeout_s:
            out += ["", "timers:", f"  invite_timeout_s: {self.invite_timeout_s}"]
        out += ["", f"log: {{ level: {self.log_level} }}"]
        return "\n".join(out) + "\n"

    def _realm(self, realm: Realm) -> list[str]:
        lines = sorted({listener.line for listener in realm.listeners})
        out = [f"  {realm.name}: # {_said(lines)}", "    listen:"]
        out += [f"      - {_quoted(listener.text)}" for listener in realm.listeners]
        first = realm.listeners[0]
        version = ipaddress.ip_address(first.host).version
        advertise = self._advertised
        if advertise and ipaddress.ip_address(advertise).version == version:
            out.append(f"    advertise: {_quoted(advertise)}")
        else:
            advertise = ""
        seen = first.advertise
        if seen:
            advertise = seen.partition("]")[0].strip("[") if seen.startswith("[") else seen.partition(":")[0]
        media = f"address: {_quoted(first.host)}"
        if advertise:
            media += f", advertise: {_quoted(advertise)}"
        ports = {listener.port for listener in self.listeners}
        free = [one for one in MEDIA_PORTS if not any(one[0] <= port <= one[1] for port in ports)]
        low, high = free[0] if free else MEDIA_PORTS[0]
        out.append(f"    media: {{ {media}, ports: {low}-{high} }}")
        out.append("    nat: auto")
        if self.user_agent:
            out.append(f"    user_agent: {_quoted(self.user_agent)}")
        return out

    def _peer(self, name: str, addresses: list[str], direction: str, lines: list[int], gateway: str) -> list[str]:
        realm = "here"
        if self.realms:
            found, sure = self.realm_of(addresses[0])
            realm = found.name
            if not sure:
                self._report.assumed(lines[0], f"peer {name} is taken to be in realm {realm}: say where it really is")
        listed = ", ".join(_quoted(address) for address in addresses)
        out = [f"  {name}: # {_said(lines)}", f"    realm: {realm}", f"    addresses: [{listed}]"]
        out.append(f"    direction: {direction}")
        if gateway:
            out.append(f"    gateway: {_quoted(gateway)}")
        return out


@lru_cache(maxsize=1024)
def is_private(host: str) -> bool:
    """Whether an address is of a network that is not routed (RFC 1918, 6598, 4193, loopback and link-local)."""
    address = ipaddress.ip_address(host)
    return any(address in network for network in _PRIVATE)


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return None


def _quoted(text: str) -> str:
    """As a YAML scalar: text that could be taken for something else in double quotes."""
    if re.fullmatch(r"[A-Za-z0-9][\w./:@;=+-]*", text) and not re.search(r":(\s|$)", text):
        return text if not re.fullmatch(r"[\d.:]+", text) or text.count(".") == 3 else f'"{text}"'
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else "?" for c in escaped) + '"'


def _said(lines: list[int]) -> str:
    """``line 3`` or ``lines 3, 4``."""
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(str(line) for line in lines)}"
