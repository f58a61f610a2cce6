"""What was counted, in the unit that the price is quoted in. Pure.

An engine counts its task's own unit. A price may name another one: frames instead of seconds of
film, or the seconds that a request held its replica instead of what came out of it.
"""

from __future__ import annotations

import msgspec

from inferd.catalog.card import ModelCard
from inferd.metering.cost import cost_bound
from inferd.metering.prices import Price
from inferd.money import NanoUsd
from inferd.tasks.base import MICRO, Tier, Usage
from inferd.tasks.every import Request
from inferd.tasks.text_to_image import UNIT_PIXELS
from inferd.tasks.text_to_video import VideoRequest

TIMED_SECONDS_MAX = 600
"""What a request that is billed by its time costs at most; the time after it is free."""


def billed(usage: Usage, price: Price, card: ModelCard, request: Request, seconds: float) -> Usage:
    """The usage as it is billed; `seconds` is how long the request has held its replica."""
    unit = price.billed_unit
    if unit is None or unit == card.unit():
        return usage
    if unit == "compute_seconds":
        quantity = round(min(seconds, TIMED_SECONDS_MAX) * MICRO)
    elif unit == "frame_units" and isinstance(request, VideoRequest):
        quantity = frame_quantity(usage.quantity, card, request)
    else:
        # Uptime is paid by whoever keeps the model up, not by its callers.
        quantity = 0
    return msgspec.structs.replace(usage, quantity=quantity)


def bound(most: Usage, price: Price, card: ModelCard, request: Request, tier: Tier) -> NanoUsd:
    """The most that a request can cost, whose most usage is known."""
    return cost_bound(billed(most, price, card, request, TIMED_SECONDS_MAX), price, tier)


def frame_quantity(second_micros: int, card: ModelCard, request: VideoRequest) -> int:
    """Millionths of frame units: seconds × frames per second × width × height ÷ 2²⁰, half up."""
    side = card.options.get("side")
    width = request.width or _option(card, "default_width", side or 832)
    height = request.height or _option(card, "default_height", side or 480)
    rate = request.frames_per_second or _option(card, "frames_per_second", 16)
    # Encoders of film take even sides.
    pixels = (width // 2 * 2) * (height // 2 * 2)
    return (2 * second_micros * rate * pixels + UNIT_PIXELS) // (2 * UNIT_PIXELS)


def _option(card: ModelCard, name: str, default: object) -> int:
    return int(str(card.options.get(name, default)))
