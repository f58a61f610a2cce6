"""One page of metrics from several gateways: each sample gets its gateway's label."""

from __future__ import annotations

from collections.abc import Mapping


def merged(pages: Mapping[int, bytes]) -> bytes:
    """The pages of gateways by index, as one page: a family's samples stand together.

    Counters begin at 0 when a gateway starts again, so their sum is left to whoever asks.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for index, page in sorted(pages.items()):
        family = ""
        for line in page.decode().splitlines():
            if line.startswith("#"):
                family = line.split(" ", 3)[2]
                known = heads.setdefault(family, [])
                if line not in known:
                    known.append(line)
            elif line:
                samples.setdefault(family, []).append(_labelled(line, index))
    lines = [line for family, head in heads.items() for line in (*head, *samples.get(family, ()))]
    return "".join(f"{line}\n" for line in lines).encode()


def _labelled(sample: str, index: int) -> str:
    name, brace, rest = sample.partition("{")
    if brace:
        return f'{name}{{gateway="{index}",{rest}'
    name, _, value = sample.partition(" ")
    return f'{name}{{gateway="{index}"}} {value}'
