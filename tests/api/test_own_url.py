"""URLs that answers name lead back the way the call came."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from inferd.api.services import ApiOptions
from tests.gateway import Gateway, echo_card, gateway

PAINTER = echo_card("test/painter", task="text-to-image")
TOLD = {"host": "inside", "x-forwarded-proto": "https", "x-forwarded-host": "outside.test"}


async def picture_url(gate: Gateway) -> str:
    body: dict[str, Any] = {"model": PAINTER.name, "prompt": "a", "size": "64x64"}
    body |= {"response_format": "url"}
    answer = await gate.client.post("/v1/images/generations", body, headers=TOLD)
    return answer.json()["data"][0]["url"]


@pytest.mark.parametrize(
    ("options", "base"),
    [
        ({}, "http://inside"),
        ({"trusted_proxies": (ip_network("10.0.0.0/8"),)}, "https://outside.test"),
        ({"trusted_proxies": (ip_network("10.0.0.1/32"),)}, "http://inside"),
        (
            {
                "public_url": "https://public.test",
                "trusted_proxies": (ip_network("10.0.0.0/8"),),
            },
            "https://public.test",
        ),
    ],
)
async def test_a_proxy_is_believed_if_it_is_ours_and_the_setting_wins(
    tmp_path: Path, options: dict[str, Any], base: str
) -> None:
    async with gateway(tmp_path, PAINTER, options=ApiOptions(**options)) as gate:
        gate.client.address = "10.0.0.2"
        assert (await picture_url(gate)).startswith(f"{base}/v1/images/")
        details = (await gate.client.get(f"/models/{PAINTER.name}", headers=TOLD)).json()
        assert details["schemas"][0]["url"].startswith(f"{base}/models/")
