"""Text drawn on images: the timestamps and the fixed text of RR-ClArC."""

import datetime
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

MIN_SIDE = 16  # pixels; what is smaller has no room for text
MAX_LENGTH = 30  # characters; a longer text has no room between the margins

# All lengths below are in pixels of an image whose shorter side has this many.
_FRAME = 224
_MARGIN = 20
_PADDING = 15  # what a jittered corner keeps to the border
_LINE_HEIGHT = 20
_CHARACTER_WIDTH = 6  # of the font

_FIRST_DATE = datetime.datetime(2020, 1, 1)
_N_SECONDS = 24 * 60 * 60 * (datetime.datetime(2022, 12, 31) - _FIRST_DATE).days

# The room kept for the text, and the sides of the square it is drawn on, the last one
# not included, which is then brought to the frame's size.
_LAYOUTS = {
    "datetime": (100, _FRAME - 25, _FRAME + 25),
    "time": (60, _FRAME - 125, _FRAME),
    "text": (80, _FRAME - 25, _FRAME + 25),
}


def draw_timestamp(image, rng, time_format):
    """Write a random date on an image.

    Parameters
    ----------
    image : ndarray of shape (c, h, w), uint8
        With 1 or 3 channels. It is written to.
    rng : RandomState
        The generator of the image.
    time_format : {"datetime", "time"}
        The whole date, or the time of day.

    Returns
    -------
    box : tuple of two slices
        Rows and columns of the text.
    """
    date = _FIRST_DATE + datetime.timedelta(seconds=int(rng.randint(_N_SECONDS)))
    text = str(date) if time_format == "datetime" else str(date.time())
    ends = rng.choice([10, 245], size=3)
    colour = np.clip(ends + rng.normal(0, 5, size=3).astype(int), 0, 255)
    return _draw(image, rng, text, colour, time_format)


def draw_text(image, rng, text):
    """Write a text on an image in white; see `draw_timestamp`."""
    return _draw(image, rng, text, np.full(3, 255), "text")


def _draw(image, rng, text, colour, layout):
    """Write a text in one of the corners, a little shifted, turned and resized."""
    n_channels, height, width = image.shape
    if n_channels == 1:
        colour = colour[[0, 0, 0]]
    reserved, smallest, largest = _LAYOUTS[layout]
    if layout == "text":
        reserved = max(reserved, len(text) * _CHARACTER_WIDTH)
    frame = np.array([width, height]) * _FRAME // min(height, width)

    last = frame - [reserved, _LINE_HEIGHT]
    corner = np.where(rng.randint(2, size=2), last - _MARGIN, _MARGIN)
    corner = corner + rng.normal(0, 2, size=2).astype(int)
    corner = np.clip(corner, _PADDING, last - _PADDING)
    side = rng.randint(smallest, largest)
    angle = rng.randint(-30, 31) / 10

    canvas = Image.new("RGBA", tuple((frame * side // _FRAME).tolist()))
    place = tuple((corner * side // _FRAME).tolist())
    ImageDraw.Draw(canvas).text(place, text, fill=tuple(colour.tolist()), font=_font())
    overlay = canvas.rotate(angle).resize((width, height), Image.Resampling.BILINEAR)

    picture = Image.fromarray(image[0] if n_channels == 1 else image.transpose(1, 2, 0))
    picture.paste(overlay, mask=overlay.getchannel("A"))
    image[:] = np.asarray(picture).reshape(height, width, n_channels).transpose(2, 0, 1)
    left, top, right, bottom = overlay.getbbox()
    return slice(top, bottom), slice(left, right)


@lru_cache(maxsize=1)
def _font():
    return ImageFont.load_default_imagefont()
