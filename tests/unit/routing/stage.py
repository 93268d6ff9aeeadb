"""The ladder of the call-flow tests with its routes run by the real runner, in virtual time and without a loop."""

from __future__ import annotations

from typing import Any

from media.protocol import Play
from sbc.b2bua.effects import RunRoute, ServerFailed
from sbc.clock import VirtualClock
from sbc.config.models import Config
from sbc.routing import Node, Request, Routes
from sbc.routing.runner import Runner
from tests.support.ladder import A_HOST, B_HOST, C_HOST, Ladder, sdp

OFFER = sdp(A_HOST)
BOTH = ["carrier-b", "carrier-c"]

CONFIG = Config.model_validate(
    {
        "realms": {
            "inside": {"listen": ["udp:192.0.2.1:5060"], "media": {"address": "192.0.2.2"}},
            "outside": {"listen": ["udp:10.0.0.5:5060"], "media": {"address": "10.0.0.5"}, "media_set": "near"},
        },
        "media_profiles": {"office": {}},
        "media_sets": {"far": [{"url": "tcp://127.0.0.9:7700"}], "near": [{"workers": "local"}]},
        "peers": {
            "phones": {
                "realm": "inside",
                "addresses": A_HOST,
                "direction": "from_phones",
                "calls_to": "carrier-b",
                "profile": "office",
                "media_set": "far",
            },
            "carrier-b": {"realm": "outside", "addresses": B_HOST, "gateway": f"sip:{B_HOST}:5070;x=y"},
            "carrier-c": {"realm": "outside", "addresses": C_HOST, "gateway": f"sip:{C_HOST}:5070"},
        },
    }
)


class Stage(Ladder):
    """A ladder whose calls are decided by ``routes``."""

    def __init__(self, routes: Routes, **changes: Any) -> None:  # Any: fields of CoreSettings
        super().__init__(routes=routes.kinds, **changes)
        self.clock = VirtualClock(self.now)
        self.node = Node(CONFIG, self.core, self.clock)
        self.runner = Runner(routes, self.node, drain=self.drain, count=self.counted)

    def perform(self, effect: object) -> None:
        if isinstance(effect, ServerFailed):
            self.node.server_failed(effect)
        else:
            super().perform(effect)

    def counted(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def run(self, effect: RunRoute) -> None:
        self.clock.now = self.now
        self.runner.perform(effect)

    def call_in(self, **fields: Any) -> None:  # Any: what Phone.request takes
        """A's INVITE, and our 100."""
        self.a.request("INVITE", body=OFFER, **fields)
        self.a.expect(100)


def routes_dialling(routes: Routes, to: str | list[str] = "carrier-b", **hooks: object) -> Routes:
    """``routes`` with a main route that engages media and dials."""

    @routes.route
    async def main(request: Request) -> None:
        request.call.media.engage()
        await request.call.dial(to, **hooks)  # type: ignore[arg-type]  # hooks of several kinds

    return routes


def heard(stage: Stage) -> Play:
    """What the caller hears, which is then over."""
    play = next(one for one in stage.media if isinstance(one, Play))
    announcing = stage.call.announcing
    assert announcing is not None
    announcing.played(play.number, stage.now)
    stage.drain()
    return play
