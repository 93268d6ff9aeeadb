"""Configuration templates: ``@NAME@`` stands for a value, since both ``$`` and braces mean something to Kamailio."""

from __future__ import annotations

import re
from pathlib import Path

_FOLDER = Path(__file__).parent


def fill(template: str, target: Path, **values: object) -> Path:
    """Write ``template`` with its values to ``target``; KeyError for a name without a value."""
    text = (_FOLDER / template).read_text()
    target.write_text(re.sub(r"@([A-Z_]+)@", lambda match: str(values[match[1]]), text))
    return target
