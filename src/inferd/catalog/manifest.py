"""Which blobs a model uses: one small file for each model, so that shared blobs stay."""

from __future__ import annotations

from pathlib import Path

import msgspec


class _Uses(msgspec.Struct, frozen=True):
    model: str
    blobs: frozenset[str]


class Manifests:
    """The folder of those files. A model's name has no `@`, so no two share a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, model: str, blobs: frozenset[str]) -> frozenset[str]:
        """Record what `model` uses; return what it used before and nobody uses any more."""
        path = self._path(model)
        before = _read(path)
        if before == _Uses(model, blobs) or not (before or blobs):
            return frozenset()
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(_Uses(model, blobs)))
        part.replace(path)
        return self.unused(before.blobs) if before else frozenset()

    def forget(self, model: str) -> None:
        """`model` uses nothing any more."""
        self._path(model).unlink(missing_ok=True)

    def unused(self, blobs: frozenset[str]) -> frozenset[str]:
        """Those of `blobs` that no model uses."""
        for path in self._folder.glob("*.json"):
            if uses := _read(path):
                blobs -= uses.blobs
        return blobs

    def _path(self, model: str) -> Path:
        return self._folder / f"{model.replace('/', '@')}.json"


def _read(path: Path) -> _Uses | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Uses)
    except (OSError, msgspec.MsgspecError):
        # Lost or broken: the worst that follows is a blob that is fetched again.
        return None
