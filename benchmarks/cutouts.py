"""Cut-outs with alpha, drawn from the Noto Color Emoji font (OFL)."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_SIZE = 109  # the only one that its bitmaps have
CANVAS = (136, 128)  # width and height of a bitmap

ANIMALS = (
    "🐒🦍🦧🐕🦮🐩🐺🦊🦝🐈🦁🐅🐆🐎🦓🦌🐂🐃🐄🐖🐗🐏🐑🐐🐪🐫🦙🦒🐘🦏🦛🐁🐀🐹🐇"
    "🦔🦇🐻🐨🐼🦥🦦🦨🦘🦡🦃🐓🐣🐤🐥🐦🐧🦅🦆🦢🦉🦩🦚🦜🐸🐊🐢🦎🐍🐌🦋🐛🐜"
)
VEHICLES = "🚂🚃🚄🚅🚆🛻🚈🚉🚊🚝🏎🚋🚌🚍🚎🚐🚑🚒🚓🚔🚕🚖🚗🚘🚙🚚🚛🚜🛵🚲🛴🚁🛺🏍⛵🚢"


def draw_cutouts(characters, font=FONT):
    """Draw each character.

    Parameters
    ----------
    characters : str
        Emoji of one code point each.
    font : path-like
        File of the font.

    Returns
    -------
    cutouts : ndarray of shape (n_characters, 4, 128, 136), uint8
        RGB and alpha.

    Raises
    ------
    FileNotFoundError
        If the font is not there.
    """
    if not Path(font).exists():
        raise FileNotFoundError(
            f"The cut-outs are drawn with the font {font}, which is not there. "
            "On Debian: apt-get install fonts-noto-color-emoji."
        )
    face = ImageFont.truetype(str(font), FONT_SIZE)
    cutouts = []
    for character in characters:
        image = Image.new("RGBA", CANVAS)
        ImageDraw.Draw(image).text((0, 0), character, font=face, embedded_color=True)
        cutouts.append(np.asarray(image).transpose(2, 0, 1))
    return np.stack(cutouts)
