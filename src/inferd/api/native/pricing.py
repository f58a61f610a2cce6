"""The `pricing` block of a model: one variant for each unit that is billed (deepinfra-api 8.1).

Money here is cents for a single unit, as floats; `rate_…` are multipliers.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.catalog.card import ModelCard
from inferd.metering.prices import ONE, Price
from inferd.money import NANOS_PER_USD, UNITS_PER_RATE, usd_text
from inferd.tasks.text_to_image import UNIT_PIXELS

_NANOS_PER_CENT = NANOS_PER_USD // 100


class PricingTable(msgspec.Struct, frozen=True):
    """The price as rows for people."""

    columns: list[str]
    rows: list[list[str]]


class Pricing(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every variant has."""

    discount: float | None = None
    """The fraction that is taken off."""
    discount_ends_at: int | None = None
    """Unix seconds."""
    short: str | None = None
    full: str | None = None
    table: PricingTable | None = None


class TokenPricing(Pricing, frozen=True, kw_only=True, tag="tokens"):
    """Tokens in and out."""

    cents_per_input_token: float
    cents_per_output_token: float
    rate_per_input_token_cached: float
    rate_per_input_token_cache_write: float | None = None
    """No engine here reports tokens written to a cache, so nothing is billed for them."""
    rate_per_service_tier_priority: float | None = None
    rate_per_service_tier_flex: float | None = None
    rate_per_explicit_cache_write_token: dict[str, float] | None = None
    explicit_cache_granularity_tokens: int | None = None


class InputTokenPricing(Pricing, frozen=True, kw_only=True, tag="input_tokens"):
    """Tokens in alone."""

    cents_per_input_token: float
    cents_per_output_token: float = 0.0
    """deepctl reads it of every model."""


class InputLengthPricing(Pricing, frozen=True, kw_only=True, tag="input_length"):
    """Seconds that were listened to."""

    cents_per_input_sec: float
    cents_per_output_token: float = 0.0


class InputCharactersPricing(Pricing, frozen=True, kw_only=True, tag="input_character_length"):
    """Characters that were spoken."""

    cents_per_input_chars: float
    cents_per_output_token: float = 0.0


class OutputLengthPricing(Pricing, frozen=True, kw_only=True, tag="output_length"):
    """Seconds of film."""

    cents_per_output_sec: float
    cents_per_output_token: float = 0.0


class FrameUnitPricing(Pricing, frozen=True, kw_only=True, tag="frame_units"):
    """Frames of 1,048,576 pixels."""

    cents_per_frame_unit: float
    cents_per_output_token: float = 0.0


class ImageUnitPricing(Pricing, frozen=True, kw_only=True, tag="image_units"):
    """Pictures of 1,048,576 pixels at the model's own number of steps."""

    cents_per_image_unit: float
    default_width: int
    default_height: int
    default_iterations: int
    default_price_cents: float
    """Of one picture of the default size."""
    usage_from_cost: bool | None = None
    cents_per_output_token: float = 0.0


class TimePricing(Pricing, frozen=True, kw_only=True, tag="time"):
    """Seconds of computing."""

    cents_per_sec: float


class UptimePricing(Pricing, frozen=True, kw_only=True, tag="uptime"):
    """Seconds that a replica is up; its callers pay nothing."""

    cents_per_sec: float
    cents_per_output_token: float = 0.0
    """deepctl does without it only where the type is `time`."""


AnyPricing = (
    TokenPricing
    | InputTokenPricing
    | InputLengthPricing
    | InputCharactersPricing
    | OutputLengthPricing
    | FrameUnitPricing
    | ImageUnitPricing
    | TimePricing
    | UptimePricing
)

_VARIANTS: dict[str, tuple[type[Any], str, str]] = {
    "input_seconds": (InputLengthPricing, "cents_per_input_sec", "second of audio"),
    "input_characters": (InputCharactersPricing, "cents_per_input_chars", "character"),
    "output_seconds": (OutputLengthPricing, "cents_per_output_sec", "second of video"),
    "frame_units": (FrameUnitPricing, "cents_per_frame_unit", "frame unit"),
    "image_units": (ImageUnitPricing, "cents_per_image_unit", "image unit"),
    "compute_seconds": (TimePricing, "cents_per_sec", "second of computing"),
    "uptime_seconds": (UptimePricing, "cents_per_sec", "second that it is up"),
}


def cents_per_unit(rate: int) -> float:
    """Cents for one unit of a rate."""
    return rate / _NANOS_PER_CENT / UNITS_PER_RATE


def pricing_type(price: Price, task: str) -> str:
    """The variant's name."""
    if price.billed_unit is not None:
        return str(_VARIANTS[price.billed_unit][0].__struct_config__.tag)
    only_input = task in ("embeddings", "reranker") and not price.output
    return "input_tokens" if only_input else "tokens"


def pricing_of(card: ModelCard, price: Price) -> AnyPricing:
    """The block of a model at this price. Rates are those before the discount."""
    rows = _rows(card, price)
    ends = price.discount_ends_unix_ns()
    shared: dict[str, Any] = {
        "discount": price.discount / ONE if price.discount else None,
        "discount_ends_at": None if ends is None else ends // 1_000_000_000,
        "short": " / ".join(row[1] for row in rows),
        "full": "; ".join(f"{row[1]} per {row[0]}" for row in rows),
        "table": PricingTable(["unit", "price"], rows),
    }
    if price.billed_unit is None:
        return _of_tokens(card, price, shared)
    variant, name, _ = _VARIANTS[price.billed_unit]
    fields: dict[str, Any] = {name: cents_per_unit(price.unit), **shared}
    if variant is ImageUnitPricing:
        fields |= _default_picture(card, price)
    if "cents_per_output_token" in variant.__struct_fields__:
        fields["cents_per_output_token"] = cents_per_unit(price.output)
    return variant(**fields)


def _of_tokens(card: ModelCard, price: Price, shared: dict[str, Any]) -> AnyPricing:
    cents = {"cents_per_input_token": cents_per_unit(price.input)}
    if pricing_type(price, card.task) == "input_tokens":
        return InputTokenPricing(**cents, **shared)
    tiers = {tier: value / ONE for tier, value in price.tiers.items()}
    fields: dict[str, Any] = {
        "cents_per_output_token": cents_per_unit(price.output),
        "rate_per_input_token_cached": price.cached / price.input if price.input else 1.0,
        "rate_per_service_tier_priority": tiers.get("priority"),
        "rate_per_service_tier_flex": tiers.get("flex"),
    }
    return TokenPricing(**cents, **fields, **shared)


def default_picture(card: ModelCard) -> tuple[int, int, int]:
    """Width, height and steps of a picture when nobody says otherwise."""
    options = card.options
    width = int(str(options.get("default_width", 1024)))
    height = int(str(options.get("default_height", 1024)))
    return width, height, int(str(options.get("steps", 20)))


def _default_picture(card: ModelCard, price: Price) -> dict[str, Any]:
    width, height, steps = default_picture(card)
    return {
        "default_width": width,
        "default_height": height,
        "default_iterations": steps,
        "default_price_cents": cents_per_unit(price.unit) * width * height / UNIT_PIXELS,
    }


def _rows(card: ModelCard, price: Price) -> list[list[str]]:
    """What is billed and what it costs, each exactly."""
    million = [
        ("million input tokens", price.input),
        ("million cached input tokens", price.cached),
        ("million output tokens", price.output),
    ]
    if price.billed_unit is None:
        shown = million[:1] if pricing_type(price, card.task) == "input_tokens" else million
        return [[unit, usd_text(rate)] for unit, rate in shown]
    rows = [[unit, usd_text(rate)] for unit, rate in million if rate]
    unit, rate = _VARIANTS[price.billed_unit][2], price.unit
    if price.billed_unit == "input_characters" or rate % UNITS_PER_RATE:
        return [[f"million {unit}s", usd_text(rate)], *rows]
    return [[unit, usd_text(rate // UNITS_PER_RATE)], *rows]
