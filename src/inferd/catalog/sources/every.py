"""Where files come from, besides this machine."""

from __future__ import annotations

from dataclasses import dataclass, field

from inferd.catalog.card import Wheel
from inferd.catalog.sources.hub import Hub
from inferd.catalog.sources.npm import NpmRegistry
from inferd.catalog.sources.packages import PackageRegistry


@dataclass(frozen=True)
class Sources:
    """The registries and the hub that this installation uses."""

    packages: PackageRegistry
    npm: NpmRegistry = field(default_factory=NpmRegistry)
    hub: Hub = field(default_factory=Hub)

    def registry(self, wheel: Wheel) -> PackageRegistry | NpmRegistry:
        """Where this package lies."""
        return self.npm if wheel.registry == "npm" else self.packages
