"""Seconds to ready, resident memory, packages and megabytes of a core install.

`make bench-footprint`. See README.md.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from benchmarks.gateway.run import machine  # noqa: E402

PORT = 9110


def start_once(folder: Path) -> tuple[float, int]:
    """(seconds until /health answers, resident bytes a second later)."""
    environment = {**os.environ, "INFERD_DATA_DIR": str(folder)}
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "inferd.cli", "serve", "--port", str(PORT)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health").close()
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.01)
        seconds = time.perf_counter() - began
        time.sleep(1)
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0]) * 1024
    finally:
        process.terminate()
        process.wait()
    return seconds, resident


def install(folder: Path) -> tuple[int, float]:
    """(packages, megabytes) of the wheel in an environment of its own."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", str(ROOT)]
    subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)
    bare = {"pip", "setuptools"}
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    packages = [one for one in json.loads(listed.stdout) if one["name"] not in bare]
    site = next((folder / "lib").glob("python*/site-packages"))
    size = sum(
        file.stat().st_size
        for file in site.rglob("*")
        if file.is_file() and file.relative_to(site).parts[0] not in ("pip", "setuptools")
    )
    return len(packages), size / 1e6


def main() -> None:
    """Measure, print, keep."""
    with tempfile.TemporaryDirectory() as folder:
        starts = [start_once(Path(folder)) for _ in range(6)]
    # The first one makes the database.
    seconds = statistics.median(second for second, _ in starts[1:])
    resident = statistics.median(memory for _, memory in starts[1:])
    with tempfile.TemporaryDirectory() as folder:
        packages, megabytes = install(Path(folder))
    results = {
        "first_start_seconds": round(starts[0][0], 2),
        "start_seconds": round(seconds, 2),
        "resident_mb": round(resident / 1e6),
        "packages": packages,
        "installed_mb": round(megabytes),
    }
    for name, value in results.items():
        print(f"{name:22} {value}")
    about = machine()
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    file = Path(__file__).with_name("results") / f"{day}-{about['cores']}-cores.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"machine": about, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
