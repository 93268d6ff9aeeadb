"""Ends routes that hold their worker: an endless loop, a blocking call, a slow expression.

A route's step is what runs between two of its waits, and nobody else's call is served meanwhile. One that takes longer
than its budget gets an exception at the very line that it is at, from the handler of a timer signal. The timer is not
set for each step: it is left to run, and looks which step it meets, so a step pays for two looks at the clock.

- Time in which the system let other processes run is not the route's: it counts where the route used the processor, or
  gave it up by itself (a sleep, a read).
- While the core acts for the route (:class:`sbc.routing.acts.Acts`, or code of ours on the stack) the exception waits.
- What catches everything (``except:`` in a loop) is told again and again, and at each line that it comes to.
- A function that was ended is **doubtful** for a while: at the lines where it was, it gets 1/20 of the budget, of an
  allowance that refills by ``REFILL`` of the time; once that is used up it is ended there at once. So a function
  blocks the others for a whole step once, and for no more than ``REFILL`` of the time for long. Calls that do not come
  to such a line never notice. A trace function watches for these lines, only while there are any.

Code in C that never looks for signals cannot be ended; the supervisor's watchdog is for that.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, thread_time
from types import CodeType, FrameType
from typing import Any, Final, NamedTuple

import media
import sbc
from sbc.routing.acts import Acts
from sbc.routing.doubt import ALLOWANCE_STEPS, FORGIVEN_S, REFILL, SHORTEST_S, Doubt
from sbc.routing.routes import RouteOverran

UNLIMITED_S: Final = 86_400.0
IN_ALL: Final = 4  # a route may run for so many steps' budgets in all
TASK_REFILL: Final = 0.1  # of the time: what a task that a route has begun may run
AGAIN_S: Final = 0.01  # until what goes on all the same is told again; then half of it, and so on
CHASED_AFTER: Final = 3  # times; from then on at each line
STUBBORN: Final = 100  # times, and there is little hope
PREEMPTED_S: Final = 0.005  # at most, until the processor is asked again who has used it
ASKED_S: Final = 0.0005  # at least
MASKED_S: Final = 0.001  # until the core is looked at again
USED: Final = 0.8  # of the time looked at, on the processor: the route's own
DOUBTFUL_MAX: Final = 256

_OURS = tuple(os.path.dirname(os.path.abspath(package.__file__ or "")) + os.sep for package in (sbc, media))
_PATHS = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
_LIBRARIES = ("<", *(path + os.sep for path in _PATHS if path))
_BOUNDARY: set[CodeType] = set()

Tracer = Callable[[FrameType, str, Any], Any]  # Any: the interpreter's own


def boundary(code: CodeType) -> None:
    """Frames of ``code`` drive routes: what lies above them on the stack is the route's."""
    _BOUNDARY.add(code)


class Ended(BaseException):
    """Raised inside a route that is ended. No ``Exception``, so that a route does not take it for a failure of what it
    called; outside the route it is known as :class:`RouteOverran`."""


class Ration:
    """How long a route, or a task that a route began, may run: ``step_s`` in one step; ``all_s`` in all, of which
    ``left_s`` is left, and which refills by ``refill`` of the time that it waits.

    ``ended`` is why it was ended, None while it was not. ``dead``: it is not to be driven on.
    """

    __slots__ = ("all_s", "dead", "doubt", "ended", "left_s", "limit_s", "refill", "rings", "step_s")

    def __init__(self, step_s: float, all_s: float = float("inf"), refill: float = REFILL) -> None:
        self.step_s = step_s
        self.all_s = all_s
        self.refill = refill
        self.left_s = all_s
        self.limit_s = step_s  # of the running step
        self.rings = 0
        self.ended: RouteOverran | None = None
        self.doubt: Doubt | None = None
        self.dead = False


class _Look(NamedTuple):
    """The first look of the timer at a step that ``began`` then: ``own_s`` is what it had certainly used by ``at``."""

    began: float
    at: float
    own_s: float
    cpu_s: float  # of the thread
    switches: int  # of the thread: how often it gave the processor up by itself


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class Watchdog:
    """Watches the steps of this process's routes; inactive until installed, and always with ``step_s`` 0.

    One for a process: it takes SIGALRM and its timer.
    """

    __slots__ = (
        "_acts",
        "_armed",
        "_began",
        "_cleaned",
        "_doubtful",
        "_installed",
        "_look",
        "_place",
        "_tracing",
        "active",
        "current",
        "step_s",
    )

    def __init__(self, step_s: float, acts: Acts) -> None:
        self.step_s = step_s
        self.active = False
        self._installed = False
        self.current: Ration | None = None  # whose step it is
        self._acts = acts
        self._began = 0.0
        self._armed = False
        self._tracing = False
        self._look = _Look(0.0, 0.0, 0.0, 0.0, 0)
        self._place: tuple[CodeType, int] | None = None  # where this step was ended
        self._doubtful: dict[int, Doubt] = {}  # by id of the code
        self._cleaned = 0.0

    # Life

    def install(self) -> None:
        """Watch from now on. Raises ValueError outside of the main thread."""
        signal.signal(signal.SIGALRM, self._ring)
        self._installed = True
        self.active = self.step_s > 0

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Watch meanwhile, where signals can be taken; what others had SIGALRM and its timer for goes on afterwards."""
        if self._installed or self.step_s <= 0:
            yield
            return
        began = monotonic()
        try:
            former = signal.signal(signal.SIGALRM, self._ring)
        except ValueError:  # not the main thread
            yield
            return
        due_s, every_s = signal.setitimer(signal.ITIMER_REAL, 0)
        self.active, self._installed, self._armed = True, True, False
        try:
            yield
        finally:
            self.active, self._installed = False, False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, former if former is not None else signal.SIG_DFL)
            if due_s:
                signal.setitimer(signal.ITIMER_REAL, max(due_s - (monotonic() - began), 0.001), every_s)

    def configure(self, step_s: float) -> None:
        """Take another budget over; 0 rests."""
        self.step_s = step_s
        self.active = self._installed and step_s > 0
        self.forget()

    def forget(self) -> None:
        """Trust every function again."""
        self._doubtful.clear()

    def ration(self, *, endless: bool = False, step_s: float | None = None) -> Ration:
        """For one route; ``endless``: any number of steps, each within its budget."""
        each = (self.step_s if step_s is None else step_s) or UNLIMITED_S
        return Ration(each) if endless else Ration(each, IN_ALL * each)

    def ration_of_task(self, coro: object) -> Ration:
        """For a task that is begun in this step. Tasks of libraries may serve many routes, so they have no end; one of
        the operator's own has none where who begins it has none."""
        begins, code = self.current, getattr(coro, "cr_code", None)
        own = isinstance(code, CodeType) and not code.co_filename.startswith((*_LIBRARIES, *_OURS))
        if not own or begins is None or begins.all_s == float("inf"):
            return self.ration(endless=True)
        return Ration(begins.step_s, IN_ALL * begins.step_s, TASK_REFILL)

    # Steps

    def enter(self, ration: Ration) -> Ration | None:
        """A step begins; returns whose step it interrupts. To be followed by :meth:`leave`, whatever happens."""
        outer = self.current
        if self.active:
            self.current = ration
            self._began = monotonic()
            if not self._armed:
                self._arm(ration.limit_s)
                self._look = _Look(self._began, self._began, 0.0, thread_time(), _switches())
            if self._doubtful:
                self._lie_in_wait()
        return outer

    def leave(self, ration: Ration, outer: Ration | None) -> RouteOverran | None:
        """A step has ended; why the watchdog ended it, None where it did not."""
        if self._tracing:
            sys.settrace(None)
            self._tracing = False
        if self.current is not None:
            self.current = outer
            if ration.ended is not None:
                self._charge(ration)
            if outer is not None:
                self._began = monotonic()
        return ration.ended

    def leave_resumed(self, ration: Ration, outer: Ration | None, coro: object) -> RouteOverran | None:
        """As :meth:`leave`, of a coroutine that had waited: all its steps count together."""
        if self.active and ration.ended is None:
            ration.left_s -= monotonic() - self._began
            ration.limit_s = min(ration.step_s, ration.left_s)
            if ration.left_s <= 0:
                self._end_between(ration, _suspended(coro))
        return self.leave(ration, outer)

    def _end_between(self, ration: Ration, place: tuple[CodeType, int] | None) -> None:
        """End what has run for long enough in all its steps, at the wait ``place``."""
        took_s = ration.all_s - ration.left_s
        ration.left_s = ration.limit_s = SHORTEST_S
        if place is not None:  # not at its end, and no code of ours
            self._place = place
            self._began = monotonic() - took_s  # what the function is charged with
            ration.ended = _overran(place, _in_many_steps(took_s), took_s)

    def rested(self, ration: Ration, seconds: float) -> None:
        """A coroutine goes on after a wait: a route that mostly waits may wait for as long as it likes."""
        if ration.left_s < ration.all_s:
            ration.left_s = min(ration.all_s, ration.left_s + seconds * ration.refill)
            ration.limit_s = min(ration.step_s, ration.left_s)

    # The timer

    def _arm(self, seconds: float) -> None:
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.000002))

    def _ring(self, _number: int, frame: FrameType | None) -> None:
        """The handler of the signal: see which step the timer meets."""
        ration = self.current
        if ration is None:
            self._armed = False
            return
        age = monotonic() - self._began
        if age < ration.limit_s:
            if self._look.began != self._began:
                self._note(age)
            self._arm(ration.limit_s - age)
        elif (missing_s := self._missing_s(age, ration)) > 0 or _debugged(self):
            self._arm(min(max(missing_s, ASKED_S), PREEMPTED_S) if missing_s > 0 else PREEMPTED_S)
        elif self._is_masked(frame):
            self._arm(MASKED_S)
        else:
            self._end(ration, frame, age)

    def _note(self, age: float) -> None:
        """Look at this step: of the time since the former look, it has had what those before it cannot have had."""
        former, cpu_s = self._look, thread_time()
        own_s = min(max(cpu_s - former.cpu_s - (self._began - former.at), 0.0), age)
        self._look = _Look(self._began, self._began + age, own_s, cpu_s, _switches())

    def _missing_s(self, age: float, ration: Ration) -> float:
        """How much more of the time must be the route's until it is to be ended: it slept since the first look (then
        nothing), or has used the processor."""
        look = self._look
        if look.began != self._began:  # the first look is late, after code that let no handler run, or others did not
            self._note(age)
            look = self._look
        elif _switches() > look.switches:
            return 0.0
        return USED * ration.limit_s - (look.own_s + thread_time() - look.cpu_s)

    def _is_masked(self, frame: FrameType | None) -> bool:
        """Whether the core or the facade would be torn."""
        if self._acts.depth:
            return True
        top = frame
        while frame is not None:
            code = frame.f_code
            if code in _BOUNDARY:
                return frame is top
            name = code.co_filename
            if name.startswith(_OURS):
                return True
            if not name.startswith(_LIBRARIES):
                return False
            frame = frame.f_back
        return True

    def _end(self, ration: Ration, frame: FrameType | None, age: float) -> None:
        """End the step here. Raises Ended."""
        ration.rings += 1
        if ration.ended is None:
            self._place = _place(frame)
            ration.ended = _overran(self._place, *_what(ration, age))
        if ration.rings >= CHASED_AFTER:
            self._chase(frame)
        # Soon enough to meet what handles the last one, however long that takes; but each signal also puts a byte into
        # the buffer that wakes the loop, which holds some 250 of them.
        self._arm(AGAIN_S / (1 << (ration.rings - 1) % 13) if ration.rings < STUBBORN else 3 * AGAIN_S)
        raise Ended(str(ration.ended))

    # What catches everything

    def _chase(self, frame: FrameType | None) -> None:
        """Raise at the next line of any frame of the route; a trace function does so once."""
        while frame is not None and frame.f_code not in _BOUNDARY:
            frame.f_trace = self._chaser
            frame = frame.f_back
        sys.settrace(self._chaser)
        self._tracing = True

    def _chaser(self, frame: FrameType, event: str, _: Any) -> Tracer | None:  # Any: the interpreter's own
        ration = self.current
        if ration is None or frame.f_code.co_filename.startswith(_OURS):
            return None
        if event in ("line", "call") and not self._is_masked(frame):
            raise Ended(str(ration.ended))
        return self._chaser

    # Doubtful functions

    def _charge(self, ration: Ration) -> None:
        """A step was ended: its function is doubtful from now on."""
        if self._place is None or ration.ended is None:
            return
        now = monotonic()
        code, line = self._place
        doubt = self._doubtful.get(id(code))
        if doubt is None:
            if len(self._doubtful) >= DOUBTFUL_MAX:
                self._doubtful.clear()
            doubt = self._doubtful[id(code)] = Doubt(code, ALLOWANCE_STEPS * self.step_s, now)
        took_s = now - self._began
        look = self._look
        if look.began == self._began and _switches() == look.switches:  # it never slept: less what others took
            took_s = min(took_s, look.own_s + thread_time() - look.cpu_s)
        doubt.charge(line, took_s, now)
        self._place = None

    def _lie_in_wait(self) -> None:
        """Watch for doubtful lines in this step, unless somebody else traces."""
        if self._began - self._cleaned > 1.0:
            self._cleaned = self._began
            for doubt in tuple(self._doubtful.values()):
                if self._began - doubt.charged_s > FORGIVEN_S:
                    del self._doubtful[id(doubt.code)]
        if sys.gettrace() is None:
            sys.settrace(self._at_call)
            self._tracing = True

    def _at_call(self, frame: FrameType, _event: str, _: Any) -> Tracer | None:  # Any: the interpreter's own
        return self._at_line if id(frame.f_code) in self._doubtful else None

    def _at_line(self, frame: FrameType, event: str, _: Any) -> Tracer | None:  # Any: the interpreter's own
        doubt = self._doubtful.get(id(frame.f_code))
        if doubt is not None and event == "line" and frame.f_lineno in doubt.lines:
            self._shorten(doubt, frame)
        return self._at_line

    def _shorten(self, doubt: Doubt, frame: FrameType) -> None:
        """A step is about to be where others were ended: it has as long as the allowance says. Raises Ended."""
        ration = self.current
        if ration is None or ration.doubt is doubt or self._is_masked(frame):
            return
        ration.doubt = doubt
        now = monotonic()
        age, leash_s = now - self._began, doubt.leash(self.step_s, now)
        if not leash_s:
            self._place = (frame.f_code, frame.f_lineno)
            ration.ended = _overran(self._place, "was ended at once, since it has blocked too often", 0.0)
            ration.rings = CHASED_AFTER
            ration.limit_s = 0.0
            self._note(age)
            self._arm(SHORTEST_S)
            raise Ended(str(ration.ended))
        if leash_s < ration.left_s < float("inf"):
            ration.all_s -= ration.left_s - leash_s
            ration.left_s = leash_s
        ration.limit_s = min(ration.limit_s, age + leash_s)
        self._note(age)
        self._arm(leash_s)


def _place(frame: FrameType | None) -> tuple[CodeType, int]:
    """The innermost line of the operator's; of a library's where there is none."""
    assert frame is not None  # a step runs
    place = (frame.f_code, frame.f_lineno)
    while frame is not None and frame.f_code not in _BOUNDARY:
        if not frame.f_code.co_filename.startswith(_LIBRARIES):
            return frame.f_code, frame.f_lineno
        frame = frame.f_back
    return place


def _what(ration: Ration, age: float) -> tuple[str, float]:
    """What a step that is ended after ``age`` seconds did, and for how long."""
    if ration.doubt is None and ration.limit_s < ration.step_s:  # what it had left of all its steps
        took_s = ration.all_s - ration.left_s + age
        return _in_many_steps(took_s), took_s
    return f"blocked for {age * 1000:.0f} ms", age


def _in_many_steps(took_s: float) -> str:
    return f"ran for {took_s * 1000:.0f} ms in many steps"


def _overran(place: tuple[CodeType, int], what: str, took_s: float) -> RouteOverran:
    code, line = place
    return RouteOverran(what, code.co_qualname, f"{code.co_filename}:{line}", took_s)


def _suspended(coro: Any) -> tuple[CodeType, int] | None:
    """The operator's innermost line at which a coroutine waits. Any: a coroutine of whatever make."""
    place = None
    while (frame := getattr(coro, "cr_frame", None)) is not None:
        if place is None or not frame.f_code.co_filename.startswith((*_LIBRARIES, *_OURS)):
            place = (frame.f_code, frame.f_lineno)
        coro = coro.cr_await
    return place


def _debugged(watchdog: Watchdog) -> bool:
    """Whether somebody goes through the route step by step, which takes its time."""
    tracer = sys.gettrace()
    return tracer is not None and getattr(tracer, "__self__", None) is not watchdog
