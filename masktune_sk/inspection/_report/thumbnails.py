"""Small pictures of samples: what nets look at, before and after."""

from base64 import b64encode
from dataclasses import replace
from io import BytesIO

import numpy as np
from PIL import Image

from ...masking import resize_maps
from .._mask_display import _image_scale
from .blocks import Figure, Gallery
from .methods import MaskTuneMethod

__all__ = ["choose_rows", "draw_thumbnails", "panel_names"]

#: Largest side of a panel, in pixels of the file and on the page.
SIDE = 96
SIDE_ON_PAGE = 72
# With more parts than these they have no headings of their own.
MOST_HEADINGS = 20
# Larger images are photographs as a rule, and of these JPEG bounds the file.
MOST_LOSSLESS = 48
QUALITY = 85
#: Paints what is hidden: a fill value of 0 wouldn't be seen on black.
HIDDEN = np.array([0.9, 0.0, 0.5])
HIDDEN_NAME = "pink"
# Of the map, the rest is of the image, as in SaliencyMaskDisplay.
OPACITY = 0.7


def choose_rows(parts, n, random):
    """Draw samples at random, as many of each part as there are.

    Parameters
    ----------
    parts : Parts
        The samples by group or class.
    n : int
        How many, at most.
    random : RandomState
        Draws.

    Returns
    -------
    rows : ndarray of int
        Sorted by part.
    """
    order = random.permutation(len(parts.codes))
    codes = parts.codes[order]
    # The place of each sample among those of its part.
    place = np.empty(len(order), dtype=int)
    for code in np.unique(codes):
        of_part = codes == code
        place[of_part] = np.arange(of_part.sum())
    rows = order[np.argsort(place, kind="stable")[:n]]
    return rows[np.lexsort((rows, parts.codes[rows]))]


def panel_names(method):
    """Name the panels of a strip, from left to right."""
    names = ["the image"]
    looks = [f"what {name} looks at" for name in method.looks()]
    if isinstance(method, MaskTuneMethod):
        return [*names, looks[0], f"what is hidden, in {HIDDEN_NAME}", looks[1]]
    return names + looks


def draw_thumbnails(inputs, predictions, rows):
    """Draw a strip for each sample, with words.

    Parameters
    ----------
    inputs : Inputs
        What the report is given; images.
    predictions : list of Predictions
        For the words.
    rows : ndarray of int
        Which samples.

    Returns
    -------
    galleries : list of Gallery
        One for each part of the samples.
    """
    method, view = inputs.method, inputs.view[rows]
    X = view.source.batch(np.arange(len(rows))).numpy()
    show = _image_scale(X)
    maps = [
        resize_maps(np.asarray(method.maps(net, view)), view.shape[1:])
        for net in method.looks().values()
    ]
    masks = None
    if isinstance(method, MaskTuneMethod):
        masks = method.core.mask(view)[1]
    galleries = {}
    for i, row in enumerate(rows):
        image = show(X[i])[..., :3]
        panels = [image, *(_overlay(image, of_net[i]) for of_net in maps)]
        hidden = ""
        if masks is not None:
            panels.insert(2, np.where(masks[i][..., None], image, HIDDEN))
            hidden = f"{100 * (1 - masks[i].mean()):.1f} % hidden"
        caption = _caption(inputs, predictions, row, hidden)
        data, width, kind = _strip(panels)
        part = f"{inputs.parts.by} {inputs.parts.names[inputs.parts.codes[row]]}"
        alt = f"Sample {caption}, of {part}. From left to right: "
        alt += ", ".join(panel_names(method))
        figure = Figure(data, f"{alt}.", caption, width, kind)
        if len(inputs.parts.names) > MOST_HEADINGS:
            figure = replace(figure, caption=f"{part} · {caption}")
            part = "all samples drawn"
        galleries.setdefault(part, []).append(figure)
    return [
        Gallery(f"{part[0].upper()}{part[1:]}", tuple(figures))
        for part, figures in galleries.items()
    ]


def _caption(inputs, predictions, row, hidden):
    """Say which sample it is, and what is predicted for it."""
    label = inputs.y[row]
    words = [str(row), f"label {label}"]
    for one in predictions:
        mark = "right" if one.labels[row] == label else "wrong"
        words.append(f"{one.name}: {one.labels[row]} ({mark})")
    return " · ".join([*words, hidden] if hidden else words)


def _overlay(image, of_net):
    """Put a map over a grey image."""
    from matplotlib import colormaps

    grey = image.mean(axis=-1, keepdims=True)
    return (1 - OPACITY) * grey + OPACITY * colormaps["magma"](of_net)[..., :3]


def _strip(panels):
    """Join panels, with a gap; return the file, its width on the page and format."""
    height, width = panels[0].shape[:2]
    scale = min(1, SIDE / max(height, width))
    size = max(1, round(scale * width)), max(1, round(scale * height))
    small = [_to_image(panel).resize(size, Image.Resampling.BOX) for panel in panels]
    gap = max(1, size[0] // 24)
    total = len(panels) * (size[0] + gap) - gap
    strip = Image.new("RGB", (total, size[1]), "white")
    for i, panel in enumerate(small):
        strip.paste(panel, (i * (size[0] + gap), 0))
    kind, file = "png" if max(size) <= MOST_LOSSLESS else "jpeg", BytesIO()
    strip.save(file, format=kind, optimize=True, quality=QUALITY)
    on_page = round(total * SIDE_ON_PAGE / max(size))
    return b64encode(file.getvalue()).decode(), on_page, kind


def _to_image(panel):
    return Image.fromarray(np.round(255 * np.clip(panel, 0, 1)).astype(np.uint8))
