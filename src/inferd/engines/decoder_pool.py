"""Decoders of this process: few, kept warm, one job each at a time. Blocks; call it in a thread.

A decoder is a child under limits of the operating system (see `decoder.py`). One that dies, takes
too long or grows too much is replaced; the file that did it is refused with a fixed sentence.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

from inferd.clock import SystemClock
from inferd.engines import decoder_wire as wire
from inferd.engines.decoder import MEMORY_BYTES
from inferd.engines.decoder_wire import Job, Made
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.base import TaskName

START_SECONDS_MAX = 60.0
WALL_FACTOR = 4
"""Wall time for each second of processor time: the machine may be busy."""
JOBS_MAX = 512
"""Then a decoder is replaced: whatever leaks or was disturbed in it is gone."""
BROKEN_COSTS = 16
"""A file that was refused counts for so many."""
WATCH_SECONDS = 0.05
END_SECONDS_MAX = 5.0
KEEP_BYTES = 64 << 20
"""Of idle decoders together; more are ended when their job is."""
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Each arena reserves addresses, which the limit counts.
    "MALLOC_ARENA_MAX": "1",
}
"""All of it; nothing is inherited."""
_NEEDED: dict[TaskName, str] = {
    "automatic-speech-recognition": "sound",
    "document-to-text": "picture",
    "image-classification": "picture",
    "object-detection": "picture",
    "zero-shot-image-classification": "picture",
}
_RESIDENT_BYTES = {"picture": 20 << 20, "sound": 55 << 20, "film": 60 << 20}


class Decoders:
    """All decoders of one kind. Thread-safe."""

    def __init__(
        self, kind: str, size: int, *, memory_bytes: int | None = None, watched: bool | None = None
    ) -> None:
        """`size`: how many work at once. `memory_bytes`: what one may allocate.

        `watched`: its memory is looked at again and again, where the system sets no limit.
        """
        self._kind = kind
        self._memory_bytes = memory_bytes or MEMORY_BYTES[kind]
        self._room = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._idle_max = max(1, KEEP_BYTES // _RESIDENT_BYTES[kind])
        self._watched = sys.platform == "darwin" if watched is None else watched

    def run(self, job: Job, on_data: Callable[[bytearray], None]) -> Made:
        """Decode. `on_data` sees the output in order.

        Raises BadRequest for a file that cannot be decoded within the limits.
        """
        with self._room:
            decoder = self._take()
            try:
                made = decoder.run(job, on_data)
            except BaseException:
                self._keep(decoder, BROKEN_COSTS)
                raise
            self._keep(decoder, 1)
            return made

    def warm(self) -> None:
        """Have one ready."""
        with self._room:
            self._keep(self._take(), 0)

    def close(self) -> None:
        """End those that are idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for decoder in idle:
            decoder.end()

    def pids(self) -> list[int]:
        """Of those that are idle."""
        with self._lock:
            return [decoder.pid for decoder in self._idle]

    def _take(self) -> _Decoder:
        while True:
            with self._lock:
                decoder = self._idle.pop() if self._idle else None
            if decoder is None:
                return _Decoder(self._kind, self._memory_bytes, watched=self._watched)
            if decoder.alive():
                return decoder
            decoder.end()

    def _keep(self, decoder: _Decoder, jobs: int) -> None:
        decoder.jobs += jobs
        if decoder.sound and decoder.jobs < JOBS_MAX:
            with self._lock:
                if len(self._idle) < self._idle_max:
                    self._idle.append(decoder)
                    return
        decoder.end()


@cache
def decoders(kind: str) -> Decoders:
    """The decoders of this process."""
    return Decoders(kind, max(2, min(4, os.cpu_count() or 1)))


def warm_decoders(tasks: Iterable[TaskName]) -> None:
    """Have those ready that every request of these tasks needs. Others start when they are."""
    for kind in {_NEEDED[task] for task in tasks if task in _NEEDED}:
        # Who really needs it will hear why it does not start.
        with suppress(EngineFailed):
            decoders(kind).warm()


class _Decoder:
    """One child."""

    def __init__(self, kind: str, memory_bytes: int, *, watched: bool) -> None:
        self.jobs = 0
        self.sound = False
        """It waits for a job."""
        self._resident_max = memory_bytes + _RESIDENT_BYTES[kind] if watched else 0
        self._clock = SystemClock()
        self._killed = ""
        self._socket, theirs = socket.socketpair()
        with theirs:
            given = (kind, str(theirs.fileno()), str(0 if watched else memory_bytes))
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "inferd.engines.decoder", *given],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_ENVIRONMENT,
            )
        self._hearing = wire.Hearing(self._socket)
        try:
            self._next(self._clock.seconds() + START_SECONDS_MAX)
        except (EOFError, OSError, ValueError) as error:
            self.end()
            raise EngineFailed("The decoder does not start.", detail=repr(error)) from error
        self.sound = True

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._process.pid

    def alive(self) -> bool:
        """It has not ended while nobody looked."""
        return self._process.poll() is None

    def run(self, job: Job, on_data: Callable[[bytearray], None]) -> Made:
        """One job. Not `sound` afterwards if the child is not to be used again."""
        self.sound = False
        deadline = self._clock.seconds() + job.cpu_seconds * WALL_FACTOR
        try:
            self._socket.settimeout(None)
            wire.send_message(self._socket, wire.JOB, job)
            while True:
                kind, body = self._next(deadline)
                if kind == wire.DATA:
                    on_data(body)
                    continue
                if kind == wire.MADE:
                    self.sound = True
                    return wire.made_decoder.decode(body)
                refused = wire.refused_decoder.decode(body)
                self.sound = not refused.ends
                raise BadRequest(refused.message, param=job.param, detail=refused.detail)
        except (EOFError, OSError, ValueError) as error:
            self.sound = False
            raise self._death(job, error) from error

    def end(self) -> None:
        """Kill it if it lives; nothing of it is left."""
        self._socket.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _next(self, deadline: float) -> tuple[bytes, bytearray]:
        while True:
            left = deadline - self._clock.seconds()
            if left <= 0:
                self._kill("time")
                raise EOFError
            self._socket.settimeout(min(left, WATCH_SECONDS) if self._resident_max else left)
            try:
                return self._hearing.frame()
            except TimeoutError:
                if self._resident_max and resident_bytes(self.pid) > self._resident_max:
                    self._kill("memory")
                    raise EOFError from None

    def _kill(self, reason: str) -> None:
        self._killed = reason
        self._process.kill()

    def _death(self, job: Job, error: Exception) -> BadRequest | EngineFailed:
        with suppress(subprocess.TimeoutExpired):
            # Its own end tells more than ours would; who broke the protocol has none.
            self._process.wait(0 if isinstance(error, ValueError) else END_SECONDS_MAX)
        code = self._process.poll()
        self.end()
        detail = f"decoder ended with {code}: {error!r}"
        if self._killed == "time" or code == -signal.SIGXCPU:
            return BadRequest(f"{job.param} takes too long to decode.", param=job.param)
        if code == -signal.SIGKILL and not self._killed:
            # Somebody else did it; the file may be sound.
            return EngineFailed("The decoder was stopped.", detail=detail)
        return BadRequest(
            f"{job.param} cannot be decoded within the limits.", param=job.param, detail=detail
        )


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        pass
    else:
        return pages * os.sysconf("SC_PAGE_SIZE")
    if os.path.exists("/proc/self"):
        return 0
    listing = subprocess.run(
        ["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, check=False, text=True
    )
    return int(listing.stdout.strip() or 0) * 1024
