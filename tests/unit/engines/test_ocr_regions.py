"""Where writing is: rectangles from a map, told apart and grown back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from inferd.engines.ocr_lines import LONG_SIDE, STRIDE, Written, rows, sheet, sideways, written
from inferd.engines.ocr_regions import REGIONS_MAX, Floats, regions
from inferd.tasks.classification import Line


def floats(array: NDArray[Any]) -> Floats:
    return array.astype(np.float32)


def likely(*boxes: tuple[int, int, int, int], size: tuple[int, int] = (300, 200)) -> Floats:
    """A map with sure kernels: left, top, right, bottom."""
    drawn = Image.new("L", size)
    for box in boxes:
        ImageDraw.Draw(drawn).rectangle(box, fill=255)
    return floats(np.asarray(drawn) / 255)


class TestRegions:
    def test_a_kernel_grows_back_on_each_side(self) -> None:
        (found,) = regions(likely((50, 60, 150, 70)))
        left, top = found.corners[0].tolist()
        right, bottom = found.corners[2].tolist()
        # The mask is one pixel thicker at its right and lower side; 101 x 11 grows by 7.9.
        assert (left, top) == pytest.approx((42, 52), abs=0.3)
        assert (right, bottom) == pytest.approx((159, 79), abs=0.3)

    def test_corners_go_clockwise_from_the_upper_left(self) -> None:
        drawn = Image.fromarray((likely((50, 90, 250, 110)) * 255).astype(np.uint8))
        turned = floats(np.asarray(drawn.rotate(10)) / 255)
        ((corners, _),) = regions(turned)
        along = corners[1] - corners[0]
        assert along[0] > 0 > along[1]
        assert np.degrees(np.arctan2(-along[1], along[0])) == pytest.approx(10, abs=1)
        assert np.linalg.norm(along) > 3 * np.linalg.norm(corners[3] - corners[0])

    def test_what_touches_is_one_and_what_does_not_is_two(self) -> None:
        apart = likely((10, 10, 100, 20), (110, 10, 200, 20))
        assert len(regions(apart)) == 2
        joined = likely((10, 10, 100, 20), (101, 10, 200, 20))
        assert len(regions(joined)) == 1

    def test_specks_and_faint_marks_are_none(self) -> None:
        assert regions(likely((10, 10, 11, 11))) == []
        faint = floats(likely((10, 10, 100, 20)) * 0.4)
        assert regions(faint) == []
        assert regions(np.zeros((32, 32), np.float32)) == []

    def test_a_map_full_of_them_is_bounded(self) -> None:
        dots = [(x, y, x + 4, y + 4) for x in range(0, 990, 9) for y in range(0, 990, 9)]
        assert len(dots) > REGIONS_MAX
        assert len(regions(likely(*dots, size=(1000, 1000)))) == REGIONS_MAX

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 1 << 30), st.floats(0.05, 0.9))
    def test_any_map_gives_rectangles(self, seed: int, share: float) -> None:
        noise = np.random.default_rng(seed).random((48, 40)).astype(np.float32)
        for corners, score in regions(floats(np.where(noise < share, noise, 0))):
            sides = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
            assert sides[0] == pytest.approx(sides[2], rel=1e-3)
            assert sides[1] == pytest.approx(sides[3], rel=1e-3)
            assert 0 < score <= 1


class TestSheet:
    @pytest.mark.parametrize(
        "size", [(2, 2), (16_384, 2), (2, 16_384), (900, 24), (800, 600), (5000, 4000), (737, 737)]
    )
    def test_it_fits_the_detector_and_maps_back(self, size: tuple[int, int]) -> None:
        seen = sheet(Image.new("RGB", size))
        high, wide, _ = seen.pixels.shape
        assert high % STRIDE == wide % STRIDE == 0
        assert max(high, wide) <= LONG_SIDE + STRIDE
        ends = np.array([[-9.0, -9.0], [wide + 9.0, high + 9.0]], np.float32)
        assert seen.in_picture(ends, size).tolist() == [[0, 0], list(size)]


class TestRows:
    BOXES = (("one", 0, 0, 90, 20), ("two", 200, 6, 290, 26), ("three", 0, 40, 90, 60))

    @pytest.mark.parametrize("quarters", [0, 1, 2, 3])
    def test_a_page_is_read_whichever_way_it_lies(self, quarters: int) -> None:
        lines = [self._turned(*box, quarters) for box in self.BOXES]
        read = [[one.text for one in row] for row in rows(lines[::-1])]
        assert read == [["one", "two"], ["three"]]

    @staticmethod
    def _turned(text: str, left: int, top: int, right: int, bottom: int, quarters: int) -> Written:
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        for _ in range(quarters):
            # Clockwise, as the page would be laid down; the first corner is then another one.
            corners = np.roll(np.stack([500 - corners[:, 1], corners[:, 0]], 1), 1, axis=0)
        box = tuple((float(x), float(y)) for x, y in corners)
        # Turned to the left, a line that ran up the page stands on its head.
        return written(Line(text, 1.0, box), lies=quarters % 2 == 1, turned=quarters > 1)

    def test_no_lines_are_no_rows(self) -> None:
        assert rows([]) == []

    def test_short_ones_run_as_the_page_does(self) -> None:
        digit, line = _box(20, 40), _box(200, 30)
        assert sideways([digit, line]) == [False, False]
        assert sideways([digit]) == [True]
        assert sideways([_box(40, 20), _box(30, 200)]) == [True, True]


def _box(wide: int, high: int) -> Floats:
    return np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float32)
