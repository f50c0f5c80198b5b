"""A patch embedding, or the way back, as a picture: an image cut into patches, and the row of a matrix that one becomes."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from graphcheck.reporting.charts import drawing, image, tag
from graphcheck.reporting.words import is_number

Pixel = tuple[int, int, int]
_PLANES = ("red", "green", "blue")
_COLUMN = 64  # rows of a matrix column that are drawn


def patch_picture(site: dict[str, Any], height: int = 224, width: int = 224, *, assumed: bool = False) -> Markup | None:
    """The picture of a 2-D patch embedding or un-embedding (a row of ``patch_embeddings`` or ``patch_unembeddings``); None for
    other ranks, or a kernel of no known size.

    ``height`` and ``width`` are the image's, or ``assumed``; the picture shows true positions, pixels and order, on a made-up
    image.
    """
    back = is_back(site)
    kernel, strides = site.get("kernel_shape") or [], site.get("strides") or []
    channels = site.get("out_channels" if back else "in_channels")
    known = channels if isinstance(channels, int) and channels > 0 else 3
    pads = tuple(p if isinstance(p, int) else 0 for p in (site.get("pads") or [])[:4]) or (0, 0, 0, 0)
    dilations = tuple(d if isinstance(d, int) and d > 0 else 1 for d in (site.get("dilations") or [])[:2]) or (1, 1)
    window = (tuple(kernel), tuple(strides), pads if len(pads) == 4 else (0,) * 4, (*dilations, 1)[:2])
    pattern = " -> ".join(str(site.get("pattern") or "").split(" -> ")[:: -1 if back else 1])
    row = "place {} of {}" if site.get("bare") else "row {} of {} of the matrix"
    return _picture(window, min(3, known), pattern, row, height=height, width=width, back=back, assumed=assumed)


def moved(row: dict[str, Any]) -> dict[str, Any]:
    """A row of ``movements`` as a site: its blocks are the patches, and the channels at a place are the row."""
    block, back = [row.get("blocksize")] * 2, row.get("kind") == "depth-to-space"
    channels = "out_channels" if back else "in_channels"
    kind = "patch un-embedding" if back else "patch embedding"
    return {**row, "kind": kind, "bare": True, "kernel_shape": block, "strides": block, channels: row.get("channels")}


def is_back(site: dict[str, Any]) -> bool:
    """Whether a site is an un-embedding, whose image is its output."""
    return site.get("kind") == "patch un-embedding" or bool(re.search(r"->.*\([hw] p", str(site.get("pattern"))))


@functools.lru_cache(maxsize=128)
def _picture(
    window: tuple[tuple[Any, ...], ...],
    channels: int,
    pattern: str,
    place: str,
    *,
    height: int,
    width: int,
    back: bool,
    assumed: bool,
) -> Markup | None:
    """``window``: kernel, strides, pads (top, left, bottom, right) and dilations; ``pattern`` from the image to its rows, each
    of which is called by its number as ``place`` says."""
    kernel, strides, pads, (dh, dw) = window
    if len(kernel) != 2 or not all(isinstance(k, int) and 0 < k <= 64 for k in kernel):
        return None
    kh, kw = kernel
    sh, sw = (s if isinstance(s, int) and s > 0 else k for s, k in zip([*strides, kh, kw][:2], kernel, strict=True))
    tall, wide = (kh - 1) * dh + 1, (kw - 1) * dw + 1
    rows = max(1, (height + pads[0] + pads[2] - tall) // sh + 1)
    columns = max(1, (width + pads[1] + pads[3] - wide) // sw + 1)
    if not (tall <= height <= 4096 and wide <= width <= 4096):
        return None
    row, column = int(rows * 0.42), int(columns * 0.58)
    top, left = row * sh - pads[0], column * sw - pads[1]
    side = 210.0
    scale = side / max(height, width)
    parts = [image(_scene(height, width), 0, 24, width * scale, height * scale)]
    parts += _grid(rows, columns, tall, wide, sh, sw, scale, width, height) if not any(pads) else []
    x, y = left * scale, 24 + top * scale
    parts.append(tag("rect", x=x, y=y, width=wide * scale, height=tall * scale, class_="picked"))
    patch = [[_colour((top + i * dh) / height, (left + j * dw) / width) for j in range(kw)] for i in range(kh)]
    word = "window" if sh < tall or sw < wide else "patch"
    big = 130.0
    px, py = 268.0, 40.0
    parts.append(
        tag(
            "path",
            d=f"M{x + wide * scale:.1f} {y:.1f}L{px} {py}M{x + wide * scale:.1f} {y + tall * scale:.1f}L{px} {py + big}",
            class_="ray",
        )
    )
    parts.append(image(patch, px, py, big, big))
    parts.append(tag("rect", x=px, y=py, width=big, height=big, class_="picked"))
    parts.append(tag("text", f"one {word}: {kh} × {kw} pixels", x=px + big / 2, y=py + big + 18, class_="label mid"))
    parts += _planes(patch, channels, 434, py)
    order = _order(pattern, kh, kw, channels)
    parts.append(
        tag(
            "text",
            f"{'for example a ' if assumed else ''}{height} × {width} image, "
            f"{rows} × {columns} = {rows * columns} {word}{'es' if word == 'patch' else 's'}",
            x=0,
            y=14,
            class_="label",
        )
    )
    parts += _strip(patch, order, channels, place.format(row * columns + column, rows * columns), back=back)
    said = "A row of the matrix and the patch of the image that it becomes"
    said = said if back else "A patch of the image and the row of the matrix that it becomes"
    return drawing(760, 362, said, *parts, css="chart wide patch")


@functools.lru_cache(maxsize=64)
def _scene(height: int, width: int) -> list[list[Pixel]]:
    """A made-up image: a sky, a sun, two hills, a house; rich enough to see where a patch is from."""
    step = max(1, math.ceil(max(height, width) / 112))
    return [[_colour(i / height, j / width) for j in range(0, width, step)] for i in range(0, height, step)]


def _colour(y: float, x: float) -> Pixel:
    far, near = 0.58 + 0.09 * math.sin(x * 7 + 0.6), 0.74 + 0.06 * math.sin(x * 5 + 2.4)
    if y > near:
        shade = 0.82 + 0.18 * math.sin(x * 60 + y * 90)
        return int(86 * shade), int(142 * shade), int(74 * shade)
    if 0.52 < x < 0.72 and 0.50 < y < near:
        brick = 0.86 if (int(y * 56) + int(x * 40 + (int(y * 56) % 2) * 0.5)) % 2 else 1.0
        window = 0.57 < x < 0.62 and 0.57 < y < 0.64
        return (246, 222, 140) if window else (int(196 * brick), int(96 * brick), int(72 * brick))
    if 0.49 < x < 0.75 and 0.38 < y <= 0.50 and abs(x - 0.62) < (y - 0.38) * 1.08:
        return 92, 64, 84
    if y > far:
        return 64 + int(40 * (y - far)), 104 + int(60 * (y - far)), 108
    if (x - 0.24) ** 2 + (y - 0.2) ** 2 < 0.009:
        return 252, 206, 96
    return 118 + int(96 * y), 168 + int(66 * y), 222 + int(8 * y)


def _grid(
    rows: int, columns: int, kh: int, kw: int, sh: int, sw: int, scale: float, width: int, height: int
) -> list[Markup]:
    if max(rows, columns) > 64 or sh < kh or sw < kw:
        return []
    lines = [f"M0 {24 + r * sh * scale:.1f}h{width * scale:.1f}" for r in range(1, rows + (rows * sh < height))]
    lines += [f"M{c * sw * scale:.1f} 24v{height * scale:.1f}" for c in range(1, columns + (columns * sw < width))]
    return [tag("path", d="".join(lines), class_="patchgrid")]


def _planes(patch: Sequence[Sequence[Pixel]], channels: int, x: float, y: float) -> list[Markup]:
    """The patch's channels one by one."""
    parts = []
    for c in range(channels):
        at = x + c * 104
        parts.append(image([[_plane(p, c, channels) for p in line] for line in patch], at, y, 92, 92))
        parts.append(
            tag(
                "text",
                f"c = {c}" + (f" ({_PLANES[c]})" if channels == 3 else ""),
                x=at + 46,
                y=y + 110,
                class_="label mid",
            )
        )
    parts.append(tag("text", "its channels", x=x, y=y - 12, class_="label"))
    return parts


def _plane(pixel: Pixel, channel: int, channels: int) -> Pixel:
    if channels < 3:
        grey = sum(pixel) // 3
        return grey, grey, grey
    r, g, b = (v if i == channel else 0 for i, v in enumerate(pixel))
    return r, g, b


def _order(pattern: Any, kh: int, kw: int, channels: int) -> tuple[list[tuple[int, int, int]], str]:
    """(p1, p2, c) of each column of the row, in order, and the order's name; a Conv reads its window as (c p1 p2)."""
    found = re.search(r"->.*\(([^()]*)\)[^()]*$", pattern or "")
    names = found.group(1).split() if found else []
    if sorted(names) != ["c", "p1", "p2"]:
        names = ["c", "p1", "p2"]
    sizes = {"p1": kh, "p2": kw, "c": channels}
    first, second, third = names
    cells = []
    for i in range(sizes[first]):
        for j in range(sizes[second]):
            for k in range(sizes[third]):
                at = {first: i, second: j, third: k}
                cells.append((at["p1"], at["p2"], at["c"]))
    return cells, " ".join(names)


def _strip(
    patch: Sequence[Sequence[Pixel]],
    order: tuple[list[tuple[int, int, int]], str],
    channels: int,
    place: str,
    *,
    back: bool,
) -> list[Markup]:
    """The row of the matrix that the patch becomes (or comes from): its colours in order, and its first cells named."""
    cells, name = order
    y = 270.0
    colours = [[_plane(patch[i][j], c, channels) for i, j, c in cells]]
    parts = [
        tag(
            "text",
            f"{place}: {len(cells)} numbers, in the order ({name})" + ", become the patch" * back,
            x=0,
            y=y - 8,
            class_="label",
        )
    ]
    parts.append(tag("path", d=f"M580 {y - 20}V160m-5 7l5 -7l5 7" if back else f"M580 160V{y - 6}m-5 -7l5 7l5 -7", class_="ray"))
    parts += [image(colours, 0, y, 760, 26), tag("rect", x=0, y=y, width=760, height=26, class_="frame")]
    shown = min(len(cells), 13)
    wide = 52.0
    parts.append(
        tag(
            "path",
            d=f"M0 {y + 26}L0 {y + 46}M{760 * shown / len(cells):.1f} {y + 26}L{shown * wide} {y + 46}",
            class_="ray",
        )
    )
    for k, (i, j, c) in enumerate(cells[:shown]):
        parts.append(image([[colours[0][k]]], k * wide, y + 46, wide, 22))
        parts.append(tag("rect", x=k * wide, y=y + 46, width=wide, height=22, class_="frame"))
        parts.append(tag("text", f"{i},{j},{c}", x=k * wide + wide / 2, y=y + 84, class_="tick mid"))
    parts.append(
        tag("text", "… (p1,p2,c)" if shown < len(cells) else "(p1,p2,c)", x=shown * wide + 6, y=y + 62, class_="tick")
    )
    return parts


def filters_picture(weights: Any, most: int = 6) -> Markup | None:
    """A few filters (``most`` of them), each as a Conv kernel and as a column of the MatMul's matrix.

    ``weights``: {"filters": [[c][kh][kw] numbers, ...], "order": einops names of the matrix rows such as "p1 p2 c"}.
    """
    if not isinstance(weights, dict):
        return None
    filters = [f for f in weights.get("filters") or [] if f and f[0] and f[0][0]][:most]
    if not filters:
        return None
    parts = [tag("text", "as a Conv kernel", x=0, y=62, class_="label")]
    parts.append(tag("text", "as a column", x=0, y=140, class_="label"))
    rows = 0
    for n, kernel in enumerate(filters):
        channels, kh, kw = min(3, len(kernel)), len(kernel[0]), len(kernel[0][0])
        flat = [v for plane in kernel for line in plane for v in line if is_number(v)]
        top = max((abs(v) for v in flat), default=0) or 1.0
        picture = [[_signed([kernel[c][i][j] / top for c in range(channels)]) for j in range(kw)] for i in range(kh)]
        x = 136 + n * 104.0
        parts.append(image(picture, x, 20, 84, 84))
        parts.append(tag("text", f"filter {weights.get('first', 0) + n}", x=x + 42, y=14, class_="label mid"))
        cells, order = _order(f"-> ({weights.get('order') or 'c p1 p2'})", kh, kw, channels)
        rows = len(cells)
        shown = cells[:_COLUMN]
        column = [[_tinted(kernel[c][i][j] / top, c, channels)] for i, j, c in shown]
        parts.append(image(column, x + 22, 124, 40, 160))
        parts.append(tag("rect", x=x + 22, y=124, width=40, height=160, class_="frame"))
    parts.append(tag("text", "of the MatMul's", x=0, y=157, class_="label"))
    parts.append(tag("text", f"matrix ({order})", x=0, y=174, class_="label"))
    if rows > _COLUMN:
        parts.append(tag("text", f"its first {_COLUMN}", x=0, y=200, class_="tick"))
        parts.append(tag("text", f"of {rows} rows", x=0, y=216, class_="tick"))
    return drawing(
        136 + len(filters) * 104,
        292,
        "Filters as kernels and as columns",
        *parts,
        css="chart wide" if len(filters) > 3 else "chart",
    )


def _tinted(value: float, channel: int, channels: int) -> Pixel:
    """A number in the colour of its channel, so that a column can be found again in the kernel."""
    r, g, b = (_signed([value])[0] if channels < 3 or i == channel else 128 for i in range(3))
    return r, g, b


def _signed(values: Sequence[float]) -> Pixel:
    r, g, b = (int(128 + 127 * max(-1.0, min(1.0, v))) for v in (values if len(values) == 3 else [values[0]] * 3))
    return r, g, b
