"""The control worker: writes CDRs, serves metrics, and answers the command line."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import uvloop

from sbc.config.loader import load
from sbc.errors import ConfigError
from sbc.management import rpc
from sbc.management.slot import ControlSlot
from sbc.telemetry import log
from sbc.telemetry.counters import Counter

BEAT_S = 0.5


def run(slot: ControlSlot) -> int:
    """The life of the process, until SIGTERM; the exit code. ConfigError and OSError: it cannot begin."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(Control(slot).serve())


class Control:
    """One event loop for questions, one thread for the database, one for metrics while they are scraped."""

    def __init__(self, slot: ControlSlot) -> None:
        # Imported here, not before the fork: only this process pays for the database and metrics libraries.
        from sbc.database.cdr import CdrTable
        from sbc.database.engine import open_engine
        from sbc.management.api import Api
        from sbc.management.cdr_writer import CdrWriter
        from sbc.management.certificates import Certificates
        from sbc.management.metrics import MediaNodeCollector, PageCollector, RegistrationCollector
        from sbc.management.quality_metrics import QualityCollector
        from sbc.store.url import parse_store_url

        self._slot = slot
        self._page = slot.page
        self._log = log.get()
        self._stop = asyncio.Event()
        self._status = 0
        self._stop_metrics: Callable[[], None] | None = None
        self._writer: CdrWriter | None = None
        self._thread: threading.Thread | None = None
        config = slot.config
        quality = QualityCollector(config.realms)
        if config.store != "none":
            self._writer = CdrWriter(
                parse_store_url(slot.store_url, config.run_dir),
                config.node,
                CdrTable(open_engine(config.database)),
                config.cdr.csv,
                count=self._page.count,
                gauge=lambda name, value: self._page.set(Counter[name], value),
                note=lambda level, event, fields: self._log.write(level, event, **fields),
                observe=quality.observe,
            )
        self._certificates = Certificates(self._log.write)
        self._certificates.take(config)
        self._api = Api(slot, self._describe_store, self._describe_cdr, self._describe_certificates)
        self._collectors = (
            PageCollector(slot.pages, config.node, self._version()),
            RegistrationCollector(slot.pages, partial(self._rows, "registrations")),
            MediaNodeCollector(partial(self._rows, "media")),
            quality,
            self._certificates,
        )

    async def serve(self) -> int:
        """Everything, until told to stop or until the writer's thread dies."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        server = await rpc.serve(self._slot.control_path, self._api.methods(), self._method_failed)
        self._serve_metrics()
        cell = self._slot.cell
        if cell is not None:
            loop.add_reader(cell.bell("control"), self._role_changed, loop)
        if cell is None or cell.is_active:
            self._start_writer(loop)
        self._page.ready()
        try:
            while not self._stop.is_set():
                self._page.beat()
                self._certificates.look(time.time())
                try:
                    await asyncio.wait_for(self._stop.wait(), BEAT_S)
                except TimeoutError:
                    continue
        finally:
            await server.close()
            await self._end()
        return self._status

    def _role_changed(self, loop: asyncio.AbstractEventLoop) -> None:
        """This node of a pair became active. When it falls silent, this process is ended."""
        cell = self._slot.cell
        assert cell is not None
        cell.heard("control")
        if cell.is_active:
            self._start_writer(loop)

    def _start_writer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._writer is not None and self._thread is None:
            self._thread = threading.Thread(target=self._write_cdrs, args=(loop,), name="cdr", daemon=True)
            self._thread.start()

    async def _end(self) -> None:
        """The writer finishes its batch; the supervisor bounds how long that may take."""
        if self._writer is not None:
            self._writer.stop()
        while self._thread is not None and self._thread.is_alive():
            self._page.beat()
            await asyncio.to_thread(self._thread.join, BEAT_S)
        if self._stop_metrics is not None:
            await asyncio.to_thread(self._stop_metrics)

    def _write_cdrs(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._writer is not None
        try:
            self._writer.run()
        except Exception as error:
            self._log.exception("the CDR writer failed; a new control worker goes on", error)
            self._status = 1
            loop.call_soon_threadsafe(self._stop.set)

    def _serve_metrics(self) -> None:
        from sbc.management.metrics import serve

        where = self._slot.config.management.metrics
        if not where:
            return
        try:
            self._stop_metrics = serve(where, *self._collectors)
        except (OSError, ConfigError) as error:  # not worth the CDRs: they are written all the same
            self._log.error("metrics are not served", address=where, reason=str(error))

    def _reload(self) -> None:
        """The supervisor has validated the file already; a fault here means that it changed since."""
        try:
            config = load(self._slot.config_path)
        except ConfigError as error:
            self._log.error("the configuration was not taken over", faults=error.faults)
            self._page.count("RELOADS_REFUSED")
            return
        log.configure(config.log.level, config.log.format, "control", on_lost=self._line_lost)
        if self._writer is not None:
            self._writer.set_csv(config.cdr.csv)
        self._certificates.take(config)
        self._page.count("RELOADS")

    def _line_lost(self) -> None:
        self._page.add(Counter.LOG_LINES_LOST)

    def _method_failed(self, method: str, error: Exception) -> None:
        self._log.exception("a management method failed", error, method=method)

    def _rows(self, method: str) -> list[dict[str, Any]]:  # Any: JSON values
        """Of those workers that answer; called in the thread that is scraped."""
        from sbc.management.client import ManagementError, ask

        found: list[dict[str, Any]] = []  # Any: JSON values
        for number in self._slot.sip_numbers():
            try:
                rows = ask(self._slot.sip_sockets[number], method, timeout_s=1.0)
            except ManagementError:
                continue
            found += [{**row, "worker": f"sip {number}"} for row in rows]
        return found

    def _describe_store(self) -> dict[str, object]:
        if self._writer is None:
            return {"state": "none"}
        error = self._writer.store_error
        doubts = "; ".join(self._writer.store_doubts)
        told: dict[str, object] = {"state": "away" if error else "ready", "url": self._store_text(), "error": error}
        return {**told, "doubts": doubts} if doubts else told

    def _describe_certificates(self) -> list[dict[str, Any]]:  # Any: JSON values
        return self._certificates.rows(time.time())

    def _describe_cdr(self) -> dict[str, object]:
        writer = self._writer
        if writer is None:
            return {"state": "log only"}
        return {
            "state": "waiting" if writer.database_error else "ready",
            "written": self._page.get(Counter.CDR_WRITTEN),
            "waiting": writer.waiting,
            "database_error": writer.database_error,
            "csv_error": writer.csv_error,
        }

    def _store_text(self) -> str:
        from sbc.store.url import parse_store_url

        return str(parse_store_url(self._slot.store_url, self._slot.config.run_dir))

    @staticmethod
    def _version() -> str:
        from sbc import __version__

        return __version__
