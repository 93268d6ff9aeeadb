"""Kamailio as a registrar with digest, and as the proxy that calls what is registered there."""

from __future__ import annotations

import shutil
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import Self

from sbc.selftest.netns import Lab
from tests.conftest import SEARCH
from tests.support.sbc import eventually

CONFIG = """\
debug=1
log_stderror=yes
fork=yes
children=2
tcp_children=1
disable_tcp=no
dns=no
rev_dns=no
listen=udp:{host}:{port}
listen=tcp:{host}:{port}
alias="{domain}"
loadmodule "sl.so"
loadmodule "tm.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "maxfwd.so"
loadmodule "siputils.so"
loadmodule "textops.so"
loadmodule "xlog.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
modparam("usrloc", "db_mode", 0)
modparam("registrar", "append_branches", 1)
modparam("registrar", "min_expires", 5)
modparam("auth", "nonce_expire", {nonce_s})
modparam("auth", "qop", "auth")
modparam("auth", "algorithm", "{algorithm}")
request_route {{
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483", "Too Many Hops"); exit; }}
  if (is_method("REGISTER")) {{
    if (!pv_www_authenticate("{domain}", "{password}", "0")) {{ www_challenge("{domain}", "1"); exit; }}
    xlog("L_ERR", "REGISTER $tU $ci $cs expires $hdr(Expires) contact $ct\\n");
    save("location");
    exit;
  }}
  if (has_totag()) {{
    if (loose_route()) {{ t_relay(); exit; }}
    if (is_method("ACK")) {{ t_relay(); exit; }}
    sl_send_reply("404", "Not Here");
    exit;
  }}
  if (is_method("CANCEL")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}
  record_route();
  if (!lookup("location")) {{ sl_send_reply("404", "Not Registered"); exit; }}
  xlog("L_ERR", "$rm $tU goes to $ru\\n");
  t_relay();
}}
"""


class Kamailio:
    """One registrar for ``domain``, whose users all have ``password``. ``log`` has a line for each REGISTER accepted
    and each request that was sent on. ``inside`` is its host in a ``lab``; none: this one."""

    def __init__(
        self,
        directory: Path,
        host: str,
        port: int,
        *,
        domain: str = "carrier.example",
        password: str = "sesame",
        algorithm: str = "",
        nonce_s: int = 300,
        lab: Lab | None = None,
        inside: str = "",
    ) -> None:
        self.host, self.port = host, port
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._config = directory / "kamailio.cfg"
        self._config.write_text(
            CONFIG.format(host=host, port=port, domain=domain, password=password, algorithm=algorithm, nonce_s=nonce_s)
        )
        self._prefix = lab.inside(inside) if lab is not None else []
        self._connect = (
            partial(lab.connect, inside) if lab is not None else partial(socket.create_connection, timeout=1)
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.directory / "kamailio.log").read_text(errors="replace")

    def lines(self, beginning: str) -> list[str]:
        """What its configuration logs, from this word on."""
        return [line[at:] for line in self.log.splitlines() if (at := line.find(beginning)) >= 0]

    def start(self) -> None:
        program = shutil.which("kamailio", path=SEARCH)
        assert program is not None
        with (self.directory / "kamailio.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self._prefix,
                    *(program, "-DD", "-E", "-f", str(self._config), "-m", "64", "-M", "8"),
                    *("-Y", str(self.directory), "-P", str(self.directory / "pid"), "-w", str(self.directory)),
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._listens, 15, f"Kamailio\n{self.log}")

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        try:
            self._connect((self.host, self.port)).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """End it with its children."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
