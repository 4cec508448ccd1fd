"""The plane of two latent axes, decoded on a grid, for a page on which a point is dragged over it."""

import base64
import json
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyro_vae.data import Dataset
from pyro_vae.markup import Markup, element
from pyro_vae.pages.looking import Beside, codes_of, decoded, plane_of_codes
from pyro_vae.reports import held_out
from pyro_vae.vae import JointProgram

#: Bytes of a grid, its pictures along each axis, pixels along a side, and codes shown behind it.
_BYTES, _FEWEST, _MOST, _SIDE, _POINTS = 300_000, 5, 15, 64, 300


def explorer(vae: JointProgram, data: Dataset | None, axes: tuple[int, int], given: Beside) -> dict[str, Any]:
    """What the script of a page takes: pictures as bytes, their coordinates, and codes of data.

    The grid lies at equal steps of probability, as `JointProgram.latent_plane`; n is at most 15, and less of
    large pictures. Between its points the script blends four pictures, bilinearly.
    """
    shape = _smaller(decoded(vae, plane_of_codes(vae, data, axes, 1, given)[0], given)).shape[1:]
    number = min(max(math.isqrt(_BYTES // shape.numel()), _FEWEST), _MOST)
    z, across, down = plane_of_codes(vae, data, axes, number, given)
    grid = _as_bytes(_smaller(decoded(vae, z, given)))
    return {
        "number": number,
        "height": shape[1],
        "width": shape[2],
        "channels": grid.shape[-1],
        "pixels": base64.b64encode(grid.tobytes()).decode(),
        "across": [round(value, 4) for value in across.tolist()],
        "down": [round(value, 4) for value in down.tolist()],
        "axes": [f"z[{axis}]" for axis in axes],
        "points": [] if data is None else _points(vae, data, axes, across, down),
    }


def _smaller(pictures: Tensor) -> Tensor:
    """Pictures (N, C, H, W) of 1 or 3 channels, and of 64 pixels along a side at the most."""
    if pictures.shape[1] not in (1, 3):
        pictures = pictures.mean(1, keepdim=True)
    scale = _SIDE / max(pictures.shape[2:])
    if scale >= 1:
        return pictures
    size = [max(1, round(scale * side)) for side in pictures.shape[2:]]
    return torch.nn.functional.interpolate(pictures, size=size, mode="area")


def _as_bytes(pictures: Tensor) -> NDArray[np.uint8]:
    """(N, H, W, C): values in [0, 1] as they are; any other range of all of them stretched to it."""
    values = pictures.detach().cpu().double().nan_to_num()
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, 1e-12)
    return (255 * values).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _points(
    vae: JointProgram, data: Dataset, axes: tuple[int, int], across: Tensor, down: Tensor
) -> list[list[float]]:
    """Codes of held-out data, in steps of the grid from its upper left, and their labels, −1 for none."""
    part = getattr(data, held_out(data)).subset(_POINTS)
    codes = codes_of(vae, part)[:, list(axes)].cpu().double().numpy()
    steps = np.arange(len(across), dtype=float)
    x = np.interp(codes[:, 0], across.cpu().double().numpy(), steps)
    y = np.interp(codes[:, 1], down.flip(0).cpu().double().numpy(), steps[::-1])
    labels = torch.full((len(part),), -1) if part.labels is None else part.labels
    found = zip(x.tolist(), y.tolist(), labels.tolist(), strict=True)
    return [[round(one, 2), round(other, 2), label] for one, other, label in found]


def explorer_html(content: dict[str, Any], place: str) -> Markup:
    """The explorer with its controls; the script of the page brings it to life.

    Args:
        content: What `explorer` gave.
        place: Where it is on the page, for ids that are unique.
    """
    middle = str((content["number"] - 1) / 2)
    first, second = content["axes"]
    plane = element(
        "canvas",
        class_="plane",
        width="300",
        height="300",
        tabindex="0",
        role="application",
        aria_label=f"plane of {first} and {second}: drag the point, or move it by the arrow keys",
    )
    picture = element(
        "canvas",
        class_="decoded",
        width=str(content["width"]),
        height=str(content["height"]),
        role="img",
        aria_label="the picture decoded from the point",
    )
    sliders = []
    for axis, name in (("across", first), ("down", second)):
        own = f"{place}-{axis}"
        value = {"min": "0", "max": str(content["number"] - 1), "step": "any", "value": middle}
        slider = element("input", type="range", id=own, data_axis=axis, **value)
        sliders.append(element("p", element("label", name, for_=own), slider))
    where = element("output", aria_live="polite")
    data = Markup(json.dumps(content).replace("<", "\\u003c"))
    return element(
        "div",
        element("div", plane, picture, class_="canvases"),
        *sliders,
        element("p", where),
        element("noscript", element("p", "The explorer needs JavaScript; the plane above does not.")),
        element("script", data, type="application/json"),
        class_="explorer",
    )
