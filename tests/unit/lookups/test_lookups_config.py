"""The block ``lookups`` of the configuration: its faults with their places, and what it costs where it is absent."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from sbc.config import loader
from sbc.config.lookups import Lookups
from sbc.lookups.lookups import Lookups as Asking
from sbc.lookups.world import open_lookups
from tests.unit.config.test_loader import GOOD


def faults(lookups: str) -> list[str]:
    config, found = loader.check_text(f"{GOOD}lookups:\n{lookups}", "/etc/sbc/sbc.yaml")
    assert (config is None) == bool(found)
    lines = GOOD.count("\n") + 1
    told = []
    for fault in found:
        _, line, rest = str(fault).split(":", 2)
        told.append(f"{int(line) - lines}:{rest}")
    return told


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("  htp: {}\n", "1:3: lookups.htp: unknown key, did you mean 'http'?"),
        ("  http: { timeout: 2 }\n", "1:11: lookups.http.timeout: unknown key, did you mean 'timeout_s'?"),
        (
            "  redis:\n    rates: { url: http://x }\n",
            "2:19: lookups.redis.rates.url: the URL of a Redis store is 'store' (that of this node) or one of "
            "redis://…, rediss://…, unix://…, sentinel://…, sentinel+tls://…, cluster://…, cluster+tls://…",
        ),
        (
            "  redis:\n    rates: { url: 'sentinel://a' }\n",
            "2:19: lookups.redis.rates.url: a sentinel:// URL ends with the name of the service, for example "
            "sentinel://10.9.0.5,10.9.0.6,10.9.0.7/sbc-store",
        ),
        (
            "  redis:\n    rates: { url: 'cluster://a' }\n    good: { url: 'cluster://a', prefix: '{r}:' }\n",
            "2:5: lookups.redis.rates.prefix: in a cluster all keys must be in one slot: put a hash tag into the"
            " prefix, for example '{routes}:'",
        ),
        (
            '  redis:\n    rates: { prefix: "sbc:{x}:" }\n',
            "2:22: lookups.redis.rates.prefix: 'sbc:{' begins the keys of the journal: choose another prefix",
        ),
        (
            "  databases:\n    crm: { url: oracle://x }\n",
            "2:17: lookups.databases.crm.url: the URL of a database begins with one of sqlite://, postgresql://, "
            "mysql://",
        ),
        (
            "  databases:\n    crm: { url: postgresql://x/y }\n",
            "2:17: lookups.databases.crm.url: write the driver into the URL: postgresql+psycopg://",
        ),
        ("  http: { ca: absent.pem }\n", "1:15: lookups.http.ca: cannot read /etc/sbc/absent.pem: no such file"),
    ],
)
def test_faults_have_a_place_and_a_sentence(text: str, fault: str) -> None:
    assert [told[: len(fault)] for told in faults(text)] == [fault]


def test_a_driver_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sbc.config.lookups.find_spec", lambda name: None)
    assert faults("  databases:\n    crm: { url: mysql+pymysql://x/y }\n") == [
        "2:17: lookups.databases.crm.url: the driver pymysql is not installed: pip install 'portcullis[mysql]'"
    ]


def test_a_store_that_this_node_does_not_have() -> None:
    config, found = loader.check_text(f"{GOOD}store: none\nlookups: {{ redis: {{ rates: {{}} }} }}\n", "x.yaml")
    assert config is None
    assert "lookups.redis.rates: this node has no store of its own" in str(found[0])


def test_paths_are_seen_from_the_file_and_passwords_are_not_shown() -> None:
    text = f"{GOOD}lookups:\n  http: {{}}\n  databases: {{ crm: {{ url: sqlite:///crm.db }} }}\n"
    config, found = loader.check_text(text, "/etc/sbc/sbc.yaml")
    assert config is not None, found
    assert config.lookups.http is not None
    assert config.lookups.databases["crm"].url.get_secret_value() == "sqlite:////etc/sbc/crm.db"
    assert "crm.db" not in repr(config)


def test_nothing_is_imported_or_started_where_nothing_is_configured() -> None:
    program = (
        "import asyncio, sys\n"
        "import sbc.worker.sip_worker\n"
        "from sbc.config.lookups import Lookups\n"
        "from sbc.lookups.world import open_lookups\n"
        "open_lookups(Lookups(), asyncio.new_event_loop(), store_url='', run_dir='').close()\n"
        "open_lookups(Lookups(redis={}), asyncio.new_event_loop(), store_url='', run_dir='').close()\n"
        "names = ('h11', 'sqlalchemy', 'sbc.lookups.http', 'sbc.lookups.redis', 'sbc.lookups.database')\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.strip() == "[]"


def test_only_what_is_configured_is_opened() -> None:
    loop = asyncio.new_event_loop()
    lookups = open_lookups(Lookups.model_validate({"http": {}}), loop, store_url="", run_dir="")
    assert isinstance(lookups, Asking)
    assert not asyncio.all_tasks(loop)
    lookups.close()
    loop.close()
