"""Where a map of probabilities says that there is writing: turned rectangles. In workers only.

The detector of PaddleOCR (differentiable binarisation) marks the kernel of each line, a thinner
copy of it. Here the kernels are told apart, each gets the smallest rectangle that holds it, and
the rectangle grows back to the line's size.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
Numbers = NDArray[np.intp]

LIKELY = 0.3
SURE = 0.5
"""What a rectangle needs on the average."""
GROWTH = 1.6
"""Area over circumference, times this, is how far each side moves out."""
SIDE_MIN = 3.0
"""Pixels of the map; thinner kernels are specks."""
REGIONS_MAX = 1000


class Region(NamedTuple):
    """A line, in pixels of the map."""

    corners: Floats
    """(4, 2): x and y, clockwise from the upper left."""
    score: float


class _Runs(NamedTuple):
    """Pieces of rows; `end` is exclusive."""

    row: Numbers
    start: Numbers
    end: Numbers


def regions(likely: Floats) -> list[Region]:
    """The lines of a map (height, width), the largest ones first."""
    runs = _runs(_thickened(likely > LIKELY))
    names = _components(runs, likely.shape[1])
    found: list[Region] = []
    for members in _largest(runs, names):
        box = _smallest_rectangle(_outline(runs, members))
        if box is None or (score := _mean_inside(likely, box)) < SURE:
            continue
        found.append(Region(_clockwise(_grown(box)), score))
    return found


def _thickened(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Each pixel also fills its right, lower and lower right neighbour: small gaps close."""
    thick = mask.copy()
    thick[:, 1:] |= mask[:, :-1]
    thick[1:] |= thick[:-1].copy()
    return thick


def _runs(mask: NDArray[np.bool_]) -> _Runs:
    """All runs, row by row."""
    edged = np.zeros((mask.shape[0], mask.shape[1] + 2), np.int8)
    edged[:, 1:-1] = mask
    steps = np.diff(edged, axis=1)
    row, start = np.nonzero(steps == 1)
    _, end = np.nonzero(steps == -1)
    return _Runs(row, start, end)


def _components(runs: _Runs, width: int) -> Numbers:
    """A number for each run, the same for runs that touch, corners included."""
    wide = width + 2
    starts, ends = runs.row * wide + runs.start, runs.row * wide + runs.end
    # In the next row: from the first that ends at or after my start to the last that begins
    # at or before my end.
    first = np.searchsorted(ends, (runs.row + 1) * wide + runs.start, "left")
    after = np.searchsorted(starts, (runs.row + 1) * wide + runs.end, "right")
    counts = np.maximum(after - first, 0)
    upper = np.repeat(np.arange(len(counts)), counts)
    skipped = np.repeat(np.cumsum(counts) - counts, counts)
    lower = np.repeat(first, counts) + np.arange(len(upper)) - skipped
    return _joined(len(counts), upper, lower)


def _joined(count: int, one: Numbers, other: Numbers) -> Numbers:
    """The least number of each connected group, of `count` points and the edges between them."""
    names = np.arange(count)
    while True:
        left, right = names[one], names[other]
        if not (left != right).any():
            return names
        np.minimum.at(names, np.maximum(left, right), np.minimum(left, right))
        while (shorter := names[names]).tolist() != names.tolist():
            names = shorter


def _largest(runs: _Runs, names: Numbers) -> list[Numbers]:
    """Indexes of the runs of each component, by their pixels."""
    if not len(names):
        return []
    order = np.argsort(names, kind="stable")
    cuts = np.nonzero(np.diff(names[order]))[0] + 1
    groups = np.split(order, cuts)
    pixels = [int((runs.end[group] - runs.start[group]).sum()) for group in groups]
    best = sorted(range(len(groups)), key=lambda at: -pixels[at])[:REGIONS_MAX]
    return [groups[at] for at in best]


def _outline(runs: _Runs, members: Numbers) -> Floats:
    """The outermost pixels of each row: all that its hull can touch. They come by rows."""
    rows, first = np.unique(runs.row[members], return_index=True)
    left = np.minimum.reduceat(runs.start[members], first)
    right = np.maximum.reduceat(runs.end[members], first) - 1
    points = np.concatenate([np.stack([left, rows], 1), np.stack([right, rows], 1)])
    return points.astype(np.float32)


def _smallest_rectangle(points: Floats) -> Floats | None:
    """Four corners, in order round the rectangle; None where it is a speck.

    One side of the smallest rectangle lies on a side of the hull.
    """
    hull = _hull(points)
    if len(hull) < 3:
        return None
    sides = np.roll(hull, -1, axis=0) - hull
    along = sides / np.linalg.norm(sides, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], 1)
    x, y = along @ hull.T, across @ hull.T
    low, high = np.stack([x.min(1), y.min(1)], 1), np.stack([x.max(1), y.max(1)], 1)
    at = int(np.prod(high - low, axis=1).argmin())
    if float((high - low)[at].min()) < SIDE_MIN:
        return None
    (left, top), (right, bottom) = low[at], high[at]
    turned = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32)
    return (turned @ np.stack([along[at], across[at]])).astype(np.float32)


def _hull(points: Floats) -> Floats:
    """The convex hull (Andrew's monotone chain)."""
    ordered: list[tuple[float, float]] = sorted({(float(x), float(y)) for x, y in points})
    halves = [_half_hull(ordered), _half_hull(ordered[::-1])]
    return np.array(halves[0][:-1] + halves[1][:-1], np.float32).reshape(-1, 2)


def _half_hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    half: list[tuple[float, float]] = []
    for x, y in points:
        while len(half) > 1:
            (ax, ay), (bx, by) = half[-2], half[-1]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            half.pop()
        half.append((x, y))
    return half


def _mean_inside(likely: Floats, box: Floats) -> float:
    """The mean probability of a rectangle's pixels."""
    height, width = likely.shape
    left, top = np.clip(np.floor(box.min(0)), 0, (width - 1, height - 1)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(box.max(0)), 0, (width - 1, height - 1)).astype(int).tolist()
    mask = Image.new("1", (right - left + 1, bottom - top + 1))
    inside: list[float] = (box - (left, top)).ravel().tolist()
    ImageDraw.Draw(mask).polygon(inside, fill=1, outline=1)
    window = likely[top : bottom + 1, left : right + 1]
    return float(window[np.asarray(mask)].mean())


def _grown(box: Floats) -> Floats:
    """Each side moved out."""
    wide, high = box[1] - box[0], box[3] - box[0]
    width, height = float(np.linalg.norm(wide)), float(np.linalg.norm(high))
    distance = width * height * GROWTH / (2 * (width + height))
    x, y = wide / width * distance, high / height * distance
    return box + np.stack([-x - y, x - y, x + y, y - x])


def _clockwise(box: Floats) -> Floats:
    """From the upper left: the upper one of the two leftmost."""
    ordered = box[np.argsort(box[:, 0], kind="stable")]
    left = ordered[:2][np.argsort(ordered[:2, 1], kind="stable")]
    right = ordered[2:][np.argsort(ordered[2:, 1], kind="stable")]
    return np.stack([left[0], right[0], right[1], left[1]])
