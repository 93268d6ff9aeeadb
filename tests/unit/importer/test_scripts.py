"""Whole scripts, and the files that they become: to be read, and held to the rules of the project like any code.

``python -m tests.unit.importer.test_scripts`` writes them anew; read the difference before you keep it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sbc.importer.opensips import Imported, import_opensips
from sbc.importer.report import Outcome

SCRIPTS = Path(__file__).parent / "scripts"
NAMES = ["directions", "residential"]


def imported(name: str) -> Imported:
    return import_opensips((SCRIPTS / f"{name}.cfg").read_text(), f"{name}.cfg")


def files(name: str) -> dict[Path, str]:
    made = imported(name)
    return {
        SCRIPTS / f"{name}.yaml": made.config,
        SCRIPTS / f"{name}.py": made.routes,
        SCRIPTS / f"{name}.txt": made.report.text(),
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_script_becomes_what_it_became(name: str) -> None:
    for file, text in files(name).items():
        assert text == file.read_text(), file


def test_the_script_of_directions_is_mapped_whole() -> None:
    assert imported("directions").report.complete


def test_the_residential_script_has_gaps_where_there_is_no_counterpart() -> None:
    gaps = {item.text.strip() for item in imported("residential").report.of(Outcome.UNMAPPED)}
    assert {'if (!save("location"))', "if (!ds_select_dst(1, 4)) {", 'proxy_challenge("", "0");'} <= gaps


if __name__ == "__main__":
    for _name in NAMES:
        for _file, _text in files(_name).items():
            _file.write_text(_text)
