"""One child process that is ours: started, found again after a crash, and always ended.

Errors
    EmbeddedError
    ├── DataInUse     another live process of ours runs on this folder
    ├── PortTaken     a foreign process listens on the port
    ├── StartFailed   the program ended, or was not ready in time
    └── ClientCameFirst   (broker.py) a client used a topic before it was made
"""

import asyncio
import ctypes
import fcntl
import json
import logging
import os
import pwd
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import psutil

log = logging.getLogger("lienthong.embedded")

LOG_ROTATES_ABOVE = 16 * 1024 * 1024  # bytes; looked at when a program starts, one older file is kept
LOOK_EVERY = 0.01  # seconds between two looks at a condition that the system cannot signal

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class EmbeddedError(RuntimeError):
    """The embedded database or broker cannot run; the message says what to do."""


class DataInUse(EmbeddedError):
    """Another live process of ours owns this folder; it is left alone."""


class PortTaken(EmbeddedError):
    """A process that is not ours listens on the port."""


class StartFailed(EmbeddedError):
    """The program ended, or was not ready in time; the message ends with its last log lines."""


@dataclass(frozen=True)
class Identity:
    """Which process a number means. `started` is in clock ticks since boot: a clock step does not move it, and a
    process number that was given to somebody else does not have it."""

    pid: int
    started: int
    boot: str
    program: str

    @classmethod
    def of(cls, pid: int, program: str) -> "Identity":
        return cls(pid, _started(pid), _boot(), program)

    @property
    def alive(self) -> bool:
        """Running still: the same process, this boot, and no zombie."""
        try:
            return self.boot == _boot() and _started(self.pid) == self.started and _state(self.pid) != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False


@dataclass(frozen=True)
class Account:
    """An unprivileged account for a program that refuses to run as root.

    `over_closed_folders`: a folder above its files (a home of mode 0700, say) is closed to the account; the program
    then keeps the one capability that opens it (CAP_DAC_OVERRIDE): we do not change folders that are not ours.
    """

    uid: int
    gid: int
    over_closed_folders: bool

    @classmethod
    def for_folder(cls, own: Path, *to_reach: Path) -> "Account":
        """The owner of the folder `own` if that is an ordinary account already, else nobody; `to_reach` are the
        program and the folders that it must be able to enter."""
        stat = own.stat() if own.exists() else None
        nobody = pwd.getpwnam("nobody")
        uid, gid = (stat.st_uid, stat.st_gid) if stat and stat.st_uid else (nobody.pw_uid, nobody.pw_gid)
        way = {step for path in map(Path.resolve, to_reach) for step in (path, *path.parents)}
        return cls(uid, gid, any(not step.stat().st_mode & 0o001 for step in way))


class OwnedProcess:
    """A program as our child.

    Its identity stands in DIR/run/NAME.json, what it prints in DIR/logs/NAME.log, and DIR/run/NAME.lock is locked as
    long as we own it, so that two sites on one folder do not end each other's programs. `ends_by` are the signals
    that end it, each with the seconds it is given; SIGKILL follows. `on_our_death` is what the kernel sends it when
    we die without a chance to end it (PR_SET_PDEATHSIG: the thread that starts it must live as long as the process,
    as a main thread does).
    """

    def __init__(
        self, name: str, folder: Path, *, ends_by: Sequence[tuple[signal.Signals, float]], on_our_death: signal.Signals
    ) -> None:
        self.name = name
        self.log_file = folder / "logs" / f"{name}.log"
        self._run = folder / "run"
        self._ends_by = ends_by
        self._on_our_death = on_our_death
        self._lock: IO[str] | None = None
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process number while it runs."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    @property
    def alive(self) -> bool:
        return self.pid is not None

    def claim(self) -> None:
        """Own the name on this folder. Raises DataInUse when a live process of ours does."""
        if self._lock is not None:
            return
        self._run.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        lock = (self._run / f"{self.name}.lock").open("a+")
        try:
            # A lock of the process, not of the open file: a forked child does not inherit it.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise DataInUse(
                f"{self._run.parent} is in use by process {owner}: stop that site first, or give another folder."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def release(self) -> None:
        """Give the name back; what ran under it must have ended."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def end_orphan(self) -> bool:
        """End the program that an earlier run left behind; false if there is none."""
        identity = self._remembered()
        found = identity is not None and identity.alive
        if identity is not None and found:
            log.warning("%s: ending process %d, left by an earlier run", self.name, identity.pid)
            await end([identity], self._ends_by)
        self._forget()
        return found

    async def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, account: Account | None = None
    ) -> None:
        """Start the program; it is remembered before this returns. Raises StartFailed if it cannot be executed."""
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_ROTATES_ABOVE:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self.log_file.open("ab") as output:
            self.log_file.chmod(0o600)
            try:
                self._child = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=dict(env),
                    cwd=cwd,
                    start_new_session=True,  # Ctrl-C is for us alone: we end our programs in order
                    preexec_fn=before_exec(self._on_our_death, account),
                )
            except OSError as error:
                raise StartFailed(f"{self.name}: cannot execute {argv[0]}: {error}") from error
        with suppress(FileNotFoundError, ProcessLookupError):  # it may have ended already
            self._remember(Identity.of(self._child.pid, argv[0]))

    async def wait(self) -> int:
        """Its exit status, when it has ended: negative for the signal that ended it."""
        assert self._child is not None, "wait() comes after start()"
        return await self._child.wait()

    async def end(self) -> None:
        """End it and see it gone. Does nothing if it does not run."""
        if self._child is not None:
            for number, seconds in self._ends_by:
                if await self._ended_by(number, seconds):
                    break
            else:
                await self._ended_by(signal.SIGKILL, None)
        self._forget()

    async def _ended_by(self, number: signal.Signals, seconds: float | None) -> bool:
        assert self._child is not None
        with suppress(ProcessLookupError):
            self._child.send_signal(number)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._child.wait()
            return True
        log.warning("%s: still there %.1f s after %s", self.name, seconds or 0, number.name)
        return False

    def log_tail(self, lines: int = 12) -> str:
        """The last lines that the program printed."""
        with suppress(FileNotFoundError):
            return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
        return ""

    @property
    def _pid_file(self) -> Path:
        return self._run / f"{self.name}.json"

    def _remember(self, identity: Identity) -> None:
        new = self._pid_file.with_suffix(".new")
        new.write_text(json.dumps(asdict(identity)))
        new.replace(self._pid_file)

    def _remembered(self) -> Identity | None:
        try:
            return Identity(**json.loads(self._pid_file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):  # none, or cut by a crash of the machine
            return None

    def _forget(self) -> None:
        self._pid_file.unlink(missing_ok=True)


class Supervised:
    """A program that is started, watched and stopped: `_launch` says how it comes up.

    One lock keeps a stop and a restart apart; once `stop` is asked for, nothing is started any more.
    """

    def __init__(self, process: OwnedProcess, host: str, port: int) -> None:
        self._process = process
        self._host = host
        self._port = port
        self._one_at_a_time = asyncio.Lock()
        self._wanted = False
        self.restarts = 0

    @property
    def alive(self) -> bool:
        """Whether the program runs now."""
        return self._process.alive

    @property
    def pid(self) -> int | None:
        """The program's process number while it runs."""
        return self._process.pid

    async def _launch(self) -> None:
        raise NotImplementedError

    async def _start(self) -> None:
        self._process.claim()
        self._wanted = True
        try:
            async with self._one_at_a_time:
                await self._process.end_orphan()
                await self._launch_or_end()
        except BaseException:
            self._wanted = False
            self._process.release()
            raise

    async def stop(self) -> None:
        """End the program and give the folder back. May be called twice, and while a restart is under way."""
        self._wanted = False
        async with self._one_at_a_time:
            await self._process.end()
            self._process.release()

    async def _launch_or_end(self) -> None:
        try:
            await self._launch()
        except BaseException:
            await asyncio.shield(self._process.end())
            raise

    async def _bring_back(self) -> None:
        """Start the program again until it is up; waits longer after each failure, at most 5 s."""
        pause = 0.1
        while self._wanted:
            try:
                async with self._one_at_a_time:
                    if not self._wanted:
                        return
                    await self._process.end()
                    await self._launch_or_end()
                    self.restarts += 1
                    return
            except (EmbeddedError, OSError) as error:
                if self._wanted:
                    log.error("%s: %s", self._process.name, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 5.0)

    async def _until(
        self, ready: Callable[[], Awaitable[bool]], seconds: float, look_every: float = LOOK_EVERY
    ) -> None:
        """Wait until `ready()` says so. Raises StartFailed when the program ends before, or the time is over."""
        name = self._process.name
        until = time.monotonic() + seconds
        while not await ready():
            if not self._wanted:
                raise StartFailed(f"{name} was stopped while it started")
            if not self._process.alive:
                raise StartFailed(f"{name} ended while it started:\n{self._process.log_tail()}")
            if time.monotonic() > until:
                raise StartFailed(f"{name} was not ready in {seconds:.0f} s:\n{self._process.log_tail()}")
            await asyncio.sleep(look_every)


async def end(processes: Iterable[Identity], ends_by: Sequence[tuple[signal.Signals, float]]) -> None:
    """End processes that are not (any more) our children, and see them gone."""
    left = [process for process in processes if process.alive]
    for number, seconds in (*ends_by, (signal.SIGKILL, 10.0)):
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
        until = time.monotonic() + seconds
        while left and time.monotonic() < until:
            await asyncio.sleep(LOOK_EVERY)
            left = [process for process in left if process.alive]
        if not left:
            return
    raise EmbeddedError(f"processes {[process.pid for process in left]} cannot be ended")


def running_in(folder: Path, name: str) -> list[Identity]:
    """The processes called `name` whose working directory is `folder`, whoever started them."""
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error, FileNotFoundError, ProcessLookupError):
            if process.info["name"] == name and Path(process.cwd()) == folder:
                found.append(Identity.of(process.pid, name))
    return found


def assert_port_free(name: str, host: str, port: int) -> None:
    """Raises PortTaken, naming the port and, where the system tells, the process that has it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"port {port} on {host}, needed by the {name}, is taken{_by_whom(port)} ({error.strerror}): "
                f"stop that program, or choose other ports with --base-port."
            ) from None


async def is_listening(host: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def before_exec(on_our_death: signal.Signals, account: Account | None) -> Callable[[], None]:
    """What the child does between fork and exec: take the account, and ask to be ended when we die."""
    parent = os.getpid()
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    only_reach = (ctypes.c_uint32 * 6)(*[1 << _CAP_DAC_OVERRIDE] * 3, 0, 0, 0)

    def child() -> None:
        if account is not None:
            _libc.prctl(_PR_SET_KEEPCAPS, int(account.over_closed_folders), 0, 0, 0)
            os.setgroups([])
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
            if account.over_closed_folders:
                _libc.capset(header, only_reach)
                _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
        _libc.prctl(_PR_SET_PDEATHSIG, int(on_our_death), 0, 0, 0)  # after the account: changing it clears this
        if os.getppid() != parent:  # we died before the child could ask
            os._exit(1)

    return child


def _by_whom(port: int) -> str:
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,)
            if listens and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""


def _stat(pid: int) -> list[str]:
    # The name in brackets may hold spaces; fields are counted from behind it (proc_pid_stat(5)).
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _state(pid: int) -> str:
    return _stat(pid)[0]


def _started(pid: int) -> int:
    return int(_stat(pid)[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
