"""What ``sbc import`` does with files."""

from __future__ import annotations

from pathlib import Path

from sbc.config.loader import check
from sbc.importer.opensips import Imported, import_opensips

CONFIG, ROUTES, REPORT = "sbc.yaml", "routes.py", "report.txt"


def read(path: str) -> Imported:
    """Bring a file over. Raises InputFault for what cannot be read as a script, OSError for what is no file."""
    text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
    return import_opensips(text, path)


def write(made: Imported, directory: str) -> list[str]:
    """Write configuration, routes and report into a directory, which is made; the faults that ``sbc check`` finds.

    Raises FileExistsError where one of the files is there already: somebody may have gone on with it.
    """
    folder = Path(directory)
    for name in (CONFIG, ROUTES, REPORT):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} is there already: name another directory, or take it away")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((ROUTES, made.routes), (CONFIG, made.config), (REPORT, made.report.text())):
        (folder / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    return [str(fault) for fault in check(folder / CONFIG)[1]]
