"""What a process does for itself: its name, its limits, its user, its end when its parent is gone."""

from __future__ import annotations

import ctypes
import os
import pwd
import resource
import signal
import struct
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_SET_CHILD_SUBREAPER = 1, 8, 36  # <linux/prctl.h>
CAPABILITY_VERSION_3 = 0x20080522  # <linux/capability.h>
CAP_NET_ADMIN, CAP_NET_RAW = 1 << 12, 1 << 13
NOFILE_WANTED = 1 << 20
NICENESS_OF_THE_PUNCTUAL = -15
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

_libc = ctypes.CDLL(None, use_errno=True)


def set_title(title: str) -> None:
    """What ps and top show."""
    import setproctitle  # kept out of the import of the command line

    setproctitle.setproctitle(title)


def die_with_parent(parent: int, number: signal.Signals = signal.SIGTERM) -> None:
    """Get ``number`` when the parent ends, however it ends. After a change of user: the kernel forgets it then."""
    _libc.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(0)


def become_subreaper() -> None:
    """From now on the children of a child of ours that dies are ours."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def raise_file_limit() -> int:
    """Raise RLIMIT_NOFILE as far as we may, and return it: a call needs up to 4 descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (NOFILE_WANTED, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
        except (ValueError, OSError):
            continue
        return wanted
    return soft


def oom_score(adjust: int) -> None:
    """How eager the kernel is to end us when memory runs out, -1000 (never) to 1000; lowering needs root."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(adjust))


def go_before_others() -> None:
    """Run before whoever is busy, as far as we may: for a process that does little and must not be late."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS_OF_THE_PUNCTUAL)


def become(account: pwd.struct_passwd | None, capabilities: int = 0) -> None:
    """Become this user for good, with its groups, and of root's powers keep these (a mask of capabilities(7)); raises
    OSError."""
    if account is None:
        return
    if capabilities:
        _libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.initgroups(account.pw_name, account.pw_gid)
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    if capabilities:
        header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
        data = struct.pack("=6I", capabilities, capabilities, 0, 0, 0, 0)
        if _libc.capset(header, data):
            raise OSError(ctypes.get_errno(), "capset")


def want_of_processor(pid: int) -> tuple[bool, float]:
    """Whether a process runs or would if it could, and for how many seconds it has run; proc_pid_stat(5)."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return False, 0.0
    return fields[0] == "R", (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def describe_exit(status: int) -> str:
    """``exit code 3`` or ``SIGKILL`` from a wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with suppress(ValueError):
            return signal.Signals(number).name
        return f"signal {number}"
    return f"exit code {os.waitstatus_to_exitcode(status)}"
