"""Decoders: what explodes in one costs its own request an answer and nobody else anything."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from PIL import Image

from inferd.engines.decode_audio import decode_audio
from inferd.engines.decode_image import decode_image
from inferd.engines.decoder_pool import BROKEN_COSTS, JOBS_MAX, Decoders, resident_bytes
from inferd.engines.decoder_wire import Job, Made
from inferd.errors import BadRequest, EngineFailed
from inferd.tasks.media import Media
from tests.awake import Stopwatch

pytestmark = pytest.mark.engine


def picture(side: int = 64, **options: object) -> Media:
    out = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(out, "JPEG", **options)
    return Media("image", "image/jpeg", len(out.getvalue()), data=out.getvalue())


def job(media: Media, cpu_seconds: int = 20) -> Job:
    return Job("picture", media, "image", cpu_seconds)


@contextmanager
def pool(size: int = 1, **limits: object) -> Generator[Decoders]:
    made = Decoders("picture", size, **limits)  # pyright: ignore[reportArgumentType]
    try:
        yield made
    finally:
        made.close()


def decoded(decoders: Decoders, job: Job) -> tuple[Made, int]:
    size = [0]

    def count(data: bytearray) -> None:
        size[0] += len(data)

    return decoders.run(job, count), size[0]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_process_decodes_one_file_after_another() -> None:
    with pool() as decoders:
        assert decoded(decoders, job(picture(64))) == (Made("RGB", 64, 64), 64 * 64 * 3)
        (pid,) = decoders.pids()
        assert decoded(decoders, job(picture(2000))) == (Made("RGB", 2000, 2000), 12_000_000)
        assert decoders.pids() == [pid]
        assert pid != os.getpid()
    assert not is_alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the memory is watched")
def test_who_allocates_too_much_is_refused_and_replaced() -> None:
    with pool(memory_bytes=40 << 20) as decoders:
        decoders.warm()
        (pid,) = decoders.pids()
        with pytest.raises(BadRequest, match=r"memory|limits") as refusal:
            decoded(decoders, job(picture(4000)))
        assert refusal.value.param == "image"
        assert refusal.value.status == 400
        # The same pool serves the next caller, in another process.
        assert decoded(decoders, job(picture(64)))[1] == 64 * 64 * 3
        assert decoders.pids() != [pid]
        assert not is_alive(pid)


def test_where_the_system_sets_no_limit_the_memory_is_watched() -> None:
    with pool(memory_bytes=30 << 20, watched=True) as decoders:
        clock = Stopwatch()
        with pytest.raises(BadRequest, match="within the limits"):
            decoded(decoders, job(picture(7000, progressive=True)))
        assert clock.seconds() < 20
        assert decoded(decoders, job(picture(64)))[1] == 64 * 64 * 3


def test_who_computes_too_long_is_refused() -> None:
    out = io.BytesIO()
    Image.new("L", (3000, 3000)).save(out, "JPEG", progressive=True)
    content = out.getvalue()
    scan = content[content.rindex(b"\xff\xda") : -2]
    content = content[:-2] + scan * 400 + b"\xff\xd9"
    with pool() as decoders:
        with pytest.raises(BadRequest, match="takes too long"):
            decoded(decoders, job(Media("image", "image/jpeg", len(content), data=content), 1))
        assert decoded(decoders, job(picture(64)))[1] == 64 * 64 * 3


@pytest.mark.parametrize("cause", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash_ends_its_own_request_and_its_neighbours_go_on(cause: signal.Signals) -> None:
    """As a hole in a library's heap would."""
    with pool(2) as decoders, ThreadPoolExecutor(2) as threads:
        decoders.warm()
        (pid,) = decoders.pids()
        reached = threading.Event()
        goes_on = threading.Event()

        def hold(data: bytearray) -> None:
            reached.set()
            assert goes_on.wait(10)

        crashing = threads.submit(decoders.run, job(picture(5000)), hold)
        assert reached.wait(10)
        neighbour = threads.submit(decoded, decoders, job(picture(64)))
        assert neighbour.result(10)[1] == 64 * 64 * 3
        os.kill(pid, cause)
        goes_on.set()
        with pytest.raises(BadRequest, match="cannot be decoded within the limits") as refusal:
            crashing.result(10)
        assert "0x" not in refusal.value.message
        assert decoded(decoders, job(picture(64)))[1] == 64 * 64 * 3


def test_a_decoder_that_an_operator_kills_is_not_the_callers_fault() -> None:
    with pool() as decoders:
        decoders.warm()
        (pid,) = decoders.pids()

        def kill(data: bytearray) -> None:
            os.kill(pid, signal.SIGKILL)

        with pytest.raises(EngineFailed, match="stopped"):
            decoders.run(job(picture(5000)), kill)
        decoders.warm()
        (idle,) = decoders.pids()
        os.kill(idle, signal.SIGKILL)
        os.waitid(os.P_PID, idle, os.WEXITED | os.WNOWAIT)
        assert decoded(decoders, job(picture(64)))[1] == 64 * 64 * 3


def test_a_decoder_is_replaced_before_it_is_old() -> None:
    broken = Media("image", "image/png", 20, data=b"\x89PNG\r\n\x1a\n" + b"\0" * 12)
    with pool() as decoders:
        decoders.warm()
        (pid,) = decoders.pids()
        for _ in range(JOBS_MAX // BROKEN_COSTS):
            with pytest.raises(BadRequest, match="is not a sound picture"):
                decoded(decoders, job(broken))
        decoders.warm()
        assert decoders.pids() != [pid]


def limits_of(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/limits") as file:
        return {line[:26].strip(): line[26:].split()[0] for line in file}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_decoder_has_no_right_that_it_does_not_need() -> None:
    with pool() as decoders:
        decoded(decoders, job(picture()))
        (pid,) = decoders.pids()
        limits = limits_of(pid)
        assert 0 < int(limits["Max address space"]) < 1200 << 20
        assert 0 < int(limits["Max cpu time"]) < 60
        assert limits["Max file size"] == "0"
        assert limits["Max core file size"] == "0"
        with open(f"/proc/{pid}/oom_score_adj") as file:
            assert int(file.read()) == 1000
        with open(f"/proc/{pid}/environ", "rb") as file:
            names = {pair.partition(b"=")[0] for pair in file.read().split(b"\0")}
        assert names <= {b"OMP_NUM_THREADS", b"OPENBLAS_NUM_THREADS", b"MALLOC_ARENA_MAX", b""}
        assert resident_bytes(pid) < 64 << 20


PARENT = """
import sys, time
from inferd.engines.decoder_pool import Decoders
made = Decoders("picture", 1)
made.warm()
print(made.pids()[0], flush=True)
time.sleep(60)
"""


def test_a_decoder_ends_with_its_worker() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    deadline = time.monotonic() + 10
    while is_alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def sound(seconds: int) -> Media:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(range(256)) * 125 * seconds)
    return Media("audio", "audio/wav", len(out.getvalue()), data=out.getvalue())


def test_long_sound_comes_whole_and_in_order() -> None:
    assert decode_audio(sound(120), 16_000, 200).tobytes() == bytes(range(256)) * 125 * 120


def test_a_file_that_is_gone_is_an_unsound_one() -> None:
    gone = Media("image", "image/png", 5, path="/nowhere/at/all")
    with pytest.raises(BadRequest) as refusal:
        decode_image(gone)
    assert "nowhere" not in refusal.value.message
