"""The life of one child process, and the order in which the node stops. Pure: `now` in, orders out."""

from __future__ import annotations

from enum import Enum, auto

BEAT_LIMIT_S = 3.0  # a child that did not beat for so long hangs
HA_BEAT_LIMIT_S = 1.0  # its successor goes on where it was, and finds out in time whether the lease has gone
MEDIA_BEAT_LIMIT_S = 0.9  # its loop beats every 100 ms and waits for nothing; all its calls are silent meanwhile
BOOT_LIMIT_S = 30.0  # a child that is not ready after so long hangs
HEALTHY_S = 10.0  # a child that served for so long is as good as one that never died
AT_ONCE = 3  # deaths in a row after which it starts at once: each moment of waiting is a gap in calls
BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0


class State(Enum):
    STOPPED = "stopped"
    BOOTING = "booting"  # its first life; dying now means that the node cannot start
    STARTING = "starting"  # a later life
    READY = "ready"
    DRAINING = "draining"
    BACKOFF = "waiting"  # dead, and to be started when due


class Event(Enum):
    START = auto()
    SERVES = auto()
    DIED = auto()
    HUNG = auto()
    DUE = auto()
    STOP = auto()
    LATE = auto()  # draining took too long


class Order(Enum):
    """What the supervisor is to do."""

    FORK = auto()
    WAIT = auto()  # start it again when due
    HALT = auto()  # the node cannot start: stop everything, with the reason
    TERMINATE = auto()  # SIGTERM: drain, and the second time: hurry
    KILL = auto()


TABLE: dict[tuple[State, Event], tuple[State, tuple[Order, ...]]] = {
    (State.STOPPED, Event.START): (State.BOOTING, (Order.FORK,)),
    (State.BOOTING, Event.SERVES): (State.READY, ()),
    (State.BOOTING, Event.DIED): (State.STOPPED, (Order.HALT,)),
    (State.BOOTING, Event.HUNG): (State.BOOTING, (Order.KILL,)),
    (State.BOOTING, Event.STOP): (State.DRAINING, (Order.TERMINATE,)),
    (State.STARTING, Event.SERVES): (State.READY, ()),
    (State.STARTING, Event.DIED): (State.BACKOFF, (Order.WAIT,)),
    (State.STARTING, Event.HUNG): (State.STARTING, (Order.KILL,)),
    (State.STARTING, Event.STOP): (State.DRAINING, (Order.TERMINATE,)),
    (State.READY, Event.DIED): (State.BACKOFF, (Order.WAIT,)),
    (State.READY, Event.HUNG): (State.READY, (Order.KILL,)),
    (State.READY, Event.STOP): (State.DRAINING, (Order.TERMINATE,)),
    (State.BACKOFF, Event.DUE): (State.STARTING, (Order.FORK,)),
    (State.BACKOFF, Event.STOP): (State.STOPPED, ()),
    (State.DRAINING, Event.DIED): (State.STOPPED, ()),
    (State.DRAINING, Event.HUNG): (State.DRAINING, (Order.KILL,)),
    (State.DRAINING, Event.LATE): (State.DRAINING, (Order.KILL,)),
    (State.DRAINING, Event.STOP): (State.DRAINING, (Order.TERMINATE,)),
}
ALIVE = frozenset({State.BOOTING, State.STARTING, State.READY, State.DRAINING})


class Child:
    """One process slot: which state it is in, and when it is to start again."""

    __slots__ = ("due_s", "failures", "killed", "ready_s", "started_s", "state")

    def __init__(self) -> None:
        self.state = State.STOPPED
        self.failures = 0  # deaths in a row
        self.due_s = 0.0
        self.started_s = 0.0
        self.ready_s = 0.0
        self.killed = False

    def on(self, event: Event, now: float) -> tuple[Order, ...]:
        """Move by the table; an event that the state does not know changes nothing."""
        step = TABLE.get((self.state, event))
        if step is None:
            return ()
        before, (self.state, orders) = self.state, step
        if event is Event.SERVES:
            self.ready_s = now
        for order in orders:
            if order is Order.FORK:
                self.started_s = now
                self.killed = False
            elif order is Order.WAIT:
                if before is State.READY and now - self.ready_s >= HEALTHY_S:
                    self.failures = 0
                self.due_s = now + backoff_s(self.failures)
                self.failures += 1
            elif order is Order.KILL:
                if self.killed:  # it dies when the kernel is done with it; say it once
                    return ()
                self.killed = True
        return orders

    def adopt(self, state: State, started_s: float, now: float) -> None:
        """Begin in the state of a child that a former supervisor has started; one that waits is due at once."""
        self.state = state
        self.started_s = self.ready_s = started_s
        self.due_s = now

    def look(self, now: float, *, beat_s: float, serves: bool, limit_s: float = BEAT_LIMIT_S) -> Event | None:
        """What the clock and the child's page say has happened; ``beat_s`` is the time of its last beat."""
        match self.state:
            case State.BACKOFF:
                return Event.DUE if now >= self.due_s else None
            case State.BOOTING | State.STARTING:
                if serves:
                    return Event.SERVES
                return Event.HUNG if now - max(beat_s, self.started_s) > BOOT_LIMIT_S else None
            case State.READY | State.DRAINING:
                if self.state is State.DRAINING:  # it may close files
                    limit_s = max(limit_s, BEAT_LIMIT_S)
                return Event.HUNG if now - max(beat_s, self.started_s) > limit_s else None
            case State.STOPPED:
                return None

    @property
    def alive(self) -> bool:
        return self.state in ALIVE


def backoff_s(failures: int) -> float:
    """How long to wait after so many deaths in a row before this one: AT_ONCE times nothing, then 0.1 s, doubling, at
    most 5 s."""
    over = failures - AT_ONCE
    return 0.0 if over < 0 else float(min(BACKOFF_FIRST_S * 2 ** min(over, 10), BACKOFF_MOST_S))


class Group(Enum):
    """Children that stop together, in the order of stopping."""

    SIP = "sip"
    MEDIA = "media"
    CONTROL = "control"
    HA = "ha"
    STORE = "store"


BEAT_LIMITS_S = {Group.MEDIA: MEDIA_BEAT_LIMIT_S, Group.HA: HA_BEAT_LIMIT_S}
GRACE_S: dict[Group, float] = {Group.SIP: 2.0, Group.MEDIA: 3.0, Group.CONTROL: 5.0, Group.HA: 2.0, Group.STORE: 3.0}
HURRY_S = 2.0


class Shutdown:
    """Stops group after group: SIP workers drain first, then media, control (it writes the last CDRs), the store."""

    __slots__ = ("_deadline", "_drain_s", "_late", "_left")

    def __init__(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._left = list(Group)
        self._deadline: float | None = None
        self._late = False

    @property
    def done(self) -> bool:
        return not self._left

    @property
    def phase(self) -> Group | None:
        return self._left[0] if self._left else None

    def step(self, now: float, alive: frozenset[Group]) -> list[tuple[Group, Event]]:
        """The next events for all children of a group, given the groups that still have a live child."""
        events: list[tuple[Group, Event]] = []
        while self._left:
            group = self._left[0]
            if group is Group.HA and group not in alive:  # a node that is alone does not wait for it
                self._left.pop(0)
                self._deadline = None
                continue
            if self._deadline is None:
                drain = self._drain_s if group is Group.SIP else 0.0
                self._deadline = now + drain + GRACE_S[group]
                self._late = False
                events.append((group, Event.STOP))
                return events
            if group in alive:
                if now >= self._deadline and not self._late:
                    self._late = True
                    events.append((group, Event.LATE))
                return events
            self._left.pop(0)
            self._deadline = None
        return events

    def hurry(self, now: float) -> list[tuple[Group, Event]]:
        """The operator asked again: the present group is told so and has HURRY_S left."""
        if not self._left or self._deadline is None:
            return []
        self._deadline = min(self._deadline, now + HURRY_S)
        return [(self._left[0], Event.STOP)]
