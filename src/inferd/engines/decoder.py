"""The decoder: a child process of a worker that opens callers' files, one after another.

`python -m inferd.engines.decoder KIND FD MEMORY_BYTES`. It has no model, no network, no
credential and no right to write a file. What it may allocate is limited by the operating system
above what it needs when it is ready, what it may compute by the processor time of each job. When
it dies of a file, nothing is lost but that file. When the worker is gone, so is it.
"""

from __future__ import annotations

import importlib
import os
import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inferd.engines import decoder_wire as wire
from inferd.errors import BadRequest

if TYPE_CHECKING:
    from inferd.engines.decoder_wire import Job, Made

MEMORY_BYTES = {"picture": 1000 << 20, "sound": 768 << 20, "film": 1000 << 20}
"""Above what it needs when it is ready. Fifty million pixels take 0.8 GB as WebP, 0.4 as a
progressive JPEG that is turned, 0.25 as PNG; sound goes on as it is decoded, beside its file; a
film keeps up to 17 pictures of nine million pixels to decode the next from."""

_MODULES = {
    "picture": "inferd.engines.decode_image",
    "sound": "inferd.engines.decode_audio",
    "film": "inferd.engines.decode_video",
}


def main(kind: str, descriptor: int, memory_bytes: int) -> None:
    """Decode until the worker is gone. `memory_bytes` 0: somebody else watches."""
    module = importlib.import_module(_MODULES[kind])
    module.warm()
    _confine(memory_bytes)
    with socket.socket(fileno=descriptor) as sock:
        wire.send(sock, wire.READY)
        hearing = wire.Hearing(sock)
        with suppress(EOFError, ConnectionError):
            while True:
                _, body = hearing.frame()
                _serve(module, sock, wire.job_decoder.decode(body))


def _serve(module: Any, sock: socket.socket, job: Job) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + job.cpu_seconds
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))

    def tell(data: bytes) -> None:
        wire.send(sock, wire.DATA, data)

    try:
        made: Made = module.decode_here(job, tell)
    except MemoryError as error:
        sentence = f"{job.param} needs too much memory to be decoded."
        # Its heap is full of holes: a new one is better.
        wire.send_message(sock, wire.REFUSED, wire.Refused(sentence, repr(error), ends=True))
        raise SystemExit(0) from error
    except BadRequest as error:
        wire.send_message(sock, wire.REFUSED, wire.Refused(error.message, error.detail))
    else:
        wire.send_message(sock, wire.MADE, made)


def _confine(allowance: int) -> None:
    """Limits that nothing in this process can lift again, but for the processor time."""
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_NOFILE, 64)
    size = _address_bytes()
    if size and allowance:
        _limit(resource.RLIMIT_AS, size + allowance)
    with suppress(OSError):
        # Should the machine itself run out of memory, this goes first, not the model.
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit(what: int, value: int) -> None:
    resource.setrlimit(what, (value, value))


def _address_bytes() -> int:
    """Of this process; 0 where the system does not tell: there the worker watches."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
