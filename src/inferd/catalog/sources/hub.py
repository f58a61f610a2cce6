"""Files of a repository on the Hugging Face Hub, or on what speaks its protocol.

Two calls are needed: what a revision holds, with sizes and digests, and the files themselves::

    GET {hub}/api/models/{repo}/revision/{revision}?blobs=true
    GET {hub}/{repo}/resolve/{commit}/{path}

Every file is checked against the digest that the hub states for it: the sha256 of large files,
git's own sha1 of small ones. Pickled weights are never fetched.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import msgspec

from inferd.catalog.blocking import Stop, in_thread
from inferd.catalog.sources.http import Site, TransferFailed, new_client, place
from inferd.catalog.sources.index import Link
from inferd.catalog.sources.part import opened_part
from inferd.catalog.sources.transfer import complete, insist
from inferd.errors import Unavailable

DEFAULT_HUB_URL = "https://huggingface.co"
REFUSED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.py")
"""Formats that run code when they are loaded, and code itself; not CTranslate2's model.bin."""
_CTRANSLATE2 = "model.bin"
_PAGE_BYTES_MAX = 16 << 20
_FILES_MAX = 2000
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_PART_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


class _Lfs(msgspec.Struct):
    sha256: str
    size: int


class _Sibling(msgspec.Struct):
    rfilename: str
    size: int | None = None
    blobId: str | None = None  # noqa: N815 the hub's spelling
    lfs: _Lfs | None = None


class _Revision(msgspec.Struct):
    sha: str
    siblings: list[_Sibling]


class HubFile(msgspec.Struct, frozen=True):
    """One file of a revision."""

    path: str
    size_bytes: int
    sha256: str | None
    """Of large files; small ones have `git_sha1`."""
    git_sha1: str | None


class HubRevision(msgspec.Struct, frozen=True):
    """What one commit of a repository holds, of what was asked for."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files together."""
        return sum(file.size_bytes for file in self.files)


class Hub:
    """A hub. `token` opens private and gated repositories; it goes to the hub's origin alone."""

    def __init__(
        self, url: str = DEFAULT_HUB_URL, token: str | None = None, *, pause_seconds: float = 0.5
    ) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._pause_seconds = pause_seconds

    async def revision(self, repo: str, revision: str, include: Sequence[str]) -> HubRevision:
        """What there is to fetch. Unavailable when the hub says no, or has nothing of it."""
        path = f"/api/models/{quote(repo)}/revision/{quote(revision, safe='')}?blobs=true"
        try:
            told = await insist(lambda: self._page(path), self._pause_seconds)
            found = msgspec.json.decode(told, type=_Revision)
        except TransferFailed as error:
            raise Unavailable(f"The hub cannot be asked for {repo}: {error}.") from error
        except msgspec.MsgspecError as error:
            raise Unavailable(f"The hub's answer on {repo} cannot be read.") from error
        files = _wanted(found.siblings, include)
        if not _COMMIT.fullmatch(found.sha) or not files or len(files) > _FILES_MAX:
            raise Unavailable(
                f"The hub has no usable files of {repo} that match {', '.join(include)}."
            )
        return HubRevision(repo, found.sha, files)

    async def download(
        self, revision: HubRevision, file: HubFile, path: Path, report: Callable[[int], None]
    ) -> None:
        """Complete `path` and verify it. Unavailable when it fails for good or is not the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        url = f"{self._url}/{quote(revision.repo)}/resolve/{revision.commit}/{quote(file.path)}"
        link = Link(file.path, url, file.sha256, file.size_bytes)
        async with opened_part(path) as part:
            try:
                await complete(self._site(), link, part, report, self._pause_seconds)
            except TransferFailed as error:
                raise Unavailable(
                    f"The download of {file.path} failed after {part.size_bytes} bytes: {error}."
                ) from error
            await in_thread(lambda _: part.sync())
            sha256 = part.sha256()
        sound = sha256 == file.sha256 if file.sha256 else await in_thread(_git_check(path, file))
        if not sound:
            await asyncio.to_thread(path.unlink)
            raise Unavailable(f"What came as {file.path} has not the digest that the hub states.")

    def _site(self) -> Site:
        return Site(self._url, token=self._token, subject="hub")

    async def _page(self, path: str) -> bytes:
        page = bytearray()
        headers = {"accept": "application/json"}
        async with (
            new_client() as client,
            self._site().open(client, self._url + path, headers) as (url, response),
        ):
            while (chunk := await response.body_reader.read_chunk()) is not None:
                page += chunk
                if len(page) > _PAGE_BYTES_MAX:
                    raise TransferFailed(f"{place(url)} sends an endless page", may_pass=False)
        return bytes(page)


def _wanted(siblings: Sequence[_Sibling], include: Sequence[str]) -> tuple[HubFile, ...]:
    found: list[HubFile] = []
    for one in siblings:
        if not any(fnmatchcase(one.rfilename, pattern) for pattern in include):
            continue
        if not _is_plain(one.rfilename) or _is_refused(one.rfilename):
            continue
        size = one.lfs.size if one.lfs else one.size
        if size is None or not (one.lfs or one.blobId):
            continue
        sha256 = one.lfs.sha256 if one.lfs else None
        found.append(HubFile(one.rfilename, size, sha256, None if one.lfs else one.blobId))
    return tuple(found)


def _is_plain(path: str) -> bool:
    """Names in folders, nothing that leads anywhere else."""
    parts = PurePosixPath(path).parts
    return "/".join(parts) == path and all(_PART_NAME.fullmatch(part) for part in parts)


def _is_refused(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name != _CTRANSLATE2 and any(fnmatchcase(name, pattern) for pattern in REFUSED)


def _git_check(path: Path, file: HubFile) -> Callable[[Stop], bool]:
    def check(_: Stop) -> bool:
        content = path.read_bytes()
        # Git names a blob by the sha1 of this header and the content.
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        return digest.hexdigest() == file.git_sha1

    return check
