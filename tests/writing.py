"""Pages with writing that tests draw, and what is written on them."""

from __future__ import annotations

import io
from base64 import b64encode

from PIL import Image, ImageDraw, ImageFont

from inferd.tasks.media import Media

WHITE = (255, 255, 255)
INVOICE = [
    ["INVOICE No. 2047"],
    ["Harbour Tea Company, 14 Mill Lane"],
    ["Green tea 500 g", "24.00"],
    ["Tea pot", "38.50"],
    ["Shipping", "6.90"],
    ["Total due", "EUR 69.40"],
]
"""Rows of an invoice: what is bought, and what it costs."""
INVOICE_LINES = [cell for row in INVOICE for cell in row]


def page(rows: list[list[str]], size: int = 28) -> Image.Image:
    """Black on white, a row below the other, the second column far to the right."""
    font = ImageFont.load_default(size)
    drawn = Image.new("RGB", (800, 60 + 2 * size * len(rows)), WHITE)
    pen = ImageDraw.Draw(drawn)
    for at, row in enumerate(rows):
        for column, text in enumerate(row):
            pen.text((40 + 560 * column, 30 + 2 * size * at), text, "black", font)
    return drawn


def png(picture: Image.Image) -> bytes:
    """As a file."""
    told = io.BytesIO()
    picture.save(told, "PNG")
    return told.getvalue()


def media(picture: Image.Image) -> Media:
    """As a task takes it."""
    content = png(picture)
    return Media("image", "image/png", len(content), data=content)


def data_url(picture: Image.Image) -> str:
    """As a body holds it."""
    return f"data:image/png;base64,{b64encode(png(picture)).decode()}"
