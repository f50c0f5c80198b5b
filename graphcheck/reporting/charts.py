"""Small pictures of numbers as inline SVG; colours come from the page's classes, so that they follow light and dark."""

from __future__ import annotations

import base64
import itertools
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from markupsafe import Markup, escape

from graphcheck.reporting.words import duration, is_number, number

BAND = 16.0
"""How many spreads of seeded noise a proved pair may deviate before compare asks questions."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """One SVG element, all escaped; ``_`` in attribute names is ``-`` (``class_`` is class), None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = "".join([child if isinstance(child, Markup) else escape(child) for child in children])
    # Put together as plain text, of escaped parts only: formatting Markup takes ten times as long.
    return Markup(f"<{name}{written}>{inner}</{name}>")


def _attribute(value: object) -> object:
    if isinstance(value, float):
        return round(value, 1)
    return value if isinstance(value, int) else escape(value)


def drawing(width: float, height: float, label: str, *children: object, css: str = "chart") -> Markup:
    """An SVG picture with a text for those who do not see it."""
    return tag(
        "svg",
        tag("title", label),
        *children,
        class_=css,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        width=width,
        height=height,
    )


def png(pixels: Sequence[Sequence[tuple[int, int, int]]]) -> str:
    """A data URI of an RGB image given as rows of pixels (PNG, W3C recommendation, third edition)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    raw = b"".join(b"\0" + bytes(itertools.chain.from_iterable(row)) for row in pixels)
    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def image(pixels: Sequence[Sequence[tuple[int, int, int]]], x: float, y: float, width: float, height: float) -> Markup:
    """Pixels drawn as crisp squares in a box."""
    return tag(
        "image", href=png(pixels), x=x, y=y, width=width, height=height, preserveAspectRatio="none", class_="pixels"
    )


def histogram(rows: Any, marks: dict[str, Any] | None = None) -> Markup | None:
    """Bars for [[lower edge, count], ...] of |A - B| by decades, exact zeros first under edge 0; None without data.

    ``marks`` are named deviations drawn as lines on the same scale, such as one ulp, or the spread of rounding.
    """
    data = [(r[0], r[1]) for r in rows or [] if len(r) == 2 and is_number(r[0]) and is_number(r[1])]
    bars = {math.floor(math.log10(edge) + 1e-9): count for edge, count in data if edge > 0}
    zeros = sum(count for edge, count in data if edge <= 0)
    most = max([zeros, *bars.values()], default=0)
    if not most:
        return None
    lines = {name: math.log10(v) for name, v in (marks or {}).items() if is_number(v) and 1e-40 < v < 1e40}
    # Marks far from every bar would squeeze the bars.
    near = [x for x in lines.values() if not bars or min(bars) - 4 <= x <= max(bars) + 5]
    low = min([*bars, *(math.floor(x) for x in near)], default=0)
    high = max([*bars, *(math.floor(x) for x in near)], default=0) + 1
    width, height, base, left = 380, 172, 128, 76
    step = (width - left - 10) / (high - low)
    parts = [tag("line", x1=24, x2=width - 6, y1=base, y2=base, class_="axis")]

    def bar(x: float, wide: float, count: float, tip: str) -> Markup:
        # Square root, so that the few large deviations, which matter most, can be seen beside the many small ones.
        tall = 84 * math.sqrt(count / most)
        return tag("rect", tag("title", tip), x=x, y=base - tall, width=wide, height=tall, rx=2, class_="bar-fill")

    parts.append(bar(28, 34, zeros, f"{number(zeros)} elements are equal"))
    parts.append(tag("text", "equal", x=45, y=base + 15, class_="tick mid"))
    every = max(1, math.ceil((high - low) / 7))
    for decade in range(low, high + 1):
        x = left + (decade - low) * step
        if count := bars.get(decade):
            parts.append(bar(x + 1, step - 2, count, f"{number(count)} elements from 1e{decade} to 1e{decade + 1}"))
        if (decade - low) % every == 0:
            parts.append(tag("text", f"1e{decade}", x=x, y=base + 15, class_="tick mid"))
    shown = [(name, x) for name, x in lines.items() if x in near]
    for n, (name, x) in enumerate(sorted(shown, key=lambda pair: pair[1])):
        at = left + (x - low) * step
        parts.append(tag("line", x1=at, x2=at, y1=12 + 13 * n, y2=base, class_="markline"))
        end = at > width - 90
        place = {"x": at - 4 if end else at + 4, "y": 16 + 13 * n, "class_": "tick end" if end else "tick"}
        parts.append(tag("text", name, **place))
    rows_of_units = [
        part
        for n, (name, x) in enumerate(sorted(shown, key=lambda pair: pair[1]))
        for part in _units(name.removeprefix("1 ") + "s", x, base + 31 + 15 * n, (low, high, left, step))
    ]
    height += 15 * len(shown)
    text = "|A − B|; height: square root of the count"
    parts += [*rows_of_units, tag("text", text, x=width / 2, y=height - 8, class_="tick mid")]
    return drawing(width, height, "Histogram of deviations by decades", *parts)


def _units(name: str, one: float, y: float, scale: tuple[int, int, float, float]) -> Iterator[Markup]:
    """A row of ticks in another unit; ``one`` is the power of ten of one, ``scale`` (low, high, left, step) the axis."""
    low, high, left, step = scale
    yield tag("text", name, x=45, y=y, class_="tick mid")
    powers = range(math.ceil(low - one - 1e-9), math.floor(high - one + 1e-9) + 1)
    every = max(1, math.ceil(len(powers) / 6))
    for power in powers:
        if power % every == 0:
            text = f"{10**power:,}" if 0 <= power < 4 else f"{10.0**power:g}" if -4 < power < 0 else f"1e{power}"
            yield tag("text", text, x=left + (power + one - low) * step, y=y, class_="tick mid")


def curve(points: Any, view: str = "") -> Markup | None:
    """Deviation along the depth of the network (log scale); the band reaches to ``BAND`` spreads of rounding.

    Points with a "node" link to that node of A in the drawing of ``view``.
    """
    data = [p | {"band": _band(p)} for p in points or [] if is_number(p.get("deviation"))]
    positive = [v for p in data for v in (p["deviation"], p["band"]) if is_number(v) and v > 0]
    if len(data) < 2 or not positive:
        return None
    width, height, left, base = 760, 240, 56, 204
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)) + 0.05)
    high = max(high, low + 1)
    zeros = any(p["deviation"] <= 0 for p in data)
    low -= zeros
    floor = 10.0**low

    def x(i: int) -> float:
        return left + i * (width - left - 12) / (len(data) - 1)

    def y(value: Any) -> float:
        return base - (math.log10(max(value, floor)) - low) / (high - low) * (base - 14)

    parts = []
    every = max(1, math.ceil((high - low) / 6))
    for power in range(low, high + 1, every):
        parts += [tag("line", x1=left, x2=width - 12, y1=y(10.0**power), y2=y(10.0**power), class_="grid")]
        parts += [
            tag(
                "text",
                "equal" if zeros and power == low else f"1e{power}",
                x=left - 6,
                y=y(10.0**power) + 4,
                class_="tick end",
            )
        ]
    spread = [(i, p["band"]) for i, p in enumerate(data) if p["band"]]
    if len(spread) > 1:
        outline = " ".join(f"{x(i):.1f},{y(s):.1f}" for i, s in spread)
        parts.append(
            tag(
                "polygon",
                points=f"{x(spread[0][0]):.1f},{base} {outline} {x(spread[-1][0]):.1f},{base}",
                class_="spread",
            )
        )
    parts.append(
        tag(
            "polyline",
            points=" ".join(f"{x(i):.1f},{y(p['deviation']):.1f}" for i, p in enumerate(data)),
            class_="curve",
        )
    )
    parts += _dots(data, view, x, y)
    parts.append(
        tag("text", "depth of the network, first tensor to last", x=(width + left) / 2, y=height - 8, class_="tick mid")
    )
    return drawing(width, height, "Deviation of aligned tensors along the network, log scale", *parts, css="chart wide")


def _dots(
    data: list[dict[str, Any]], view: str, x: Callable[[int], float], y: Callable[[Any], float]
) -> Iterator[Markup]:
    """The points of a curve, each a link to its node; of a very deep network, the largest of each few."""
    bins = max(1, len(data) // 240)
    for start in range(0, len(data), bins):
        i = max(range(start, min(start + bins, len(data))), key=lambda n: data[n]["deviation"])
        p = data[i]
        over = p["band"] is not None and p["deviation"] > p["band"]
        tip = tag("title", f"{p.get('a')}: deviation {number(p['deviation'])}, spread {number(p.get('spread'))}")
        css = "dot over" if over else "dot"
        dot = tag("circle", tip, cx=x(i), cy=y(p["deviation"]), r=3.4 if over else 2.2, class_=css)
        link = p.get("node")
        yield tag("a", dot, href=f"#{view}{';' if view else ''}node=a:{link}") if isinstance(link, int) else dot


def _band(point: dict[str, Any]) -> float | None:
    spread = point.get("spread")
    return BAND * spread if is_number(spread) and spread > 0 else None


def heatmap(values: Any) -> Markup | None:
    """|A - B| as a picture: values[row][column] >= 0, brightest where the deviation is largest."""
    if not (isinstance(values, list) and values and isinstance(values[0], list) and values[0]):
        return None
    flat = [v for row in values for v in row if is_number(v)]
    top = max(flat, default=0)
    if top <= 0:
        return None
    pixels = [[_heat(v / top if is_number(v) else -1.0) for v in row] for row in values]
    rows, columns = len(pixels), len(pixels[0])
    scale = max(1.0, min(340 / columns, 200 / rows))
    wide, tall = columns * scale, rows * scale
    ramp = [[_heat(i / 63) for i in range(64)]]
    parts = [image(pixels, 0, 0, wide, tall), image(ramp, 0, tall + 10, 120, 8)]
    parts += [
        tag("text", "0", x=0, y=tall + 32, class_="tick"),
        tag("text", number(top), x=120, y=tall + 32, class_="tick end"),
    ]
    return drawing(max(wide, 124), tall + 38, "Heatmap of |A - B|", *parts)


def _heat(part: float) -> tuple[int, int, int]:
    """Dark blue over teal to light yellow, ordered in lightness (also for the colour-blind); grey for NaN."""
    if part < 0:
        return 128, 128, 128
    stops = ((24, 28, 66), (38, 84, 124), (42, 150, 138), (150, 206, 98), (253, 240, 150))
    at = min(math.sqrt(part), 1.0) * (len(stops) - 1)
    i = min(int(at), len(stops) - 2)
    r, g, b = (round(p + (q - p) * (at - i)) for p, q in zip(stops[i], stops[i + 1], strict=True))
    return r, g, b


def scatter(pairs: Any) -> Markup | None:
    """A against B for [[a, b], ...], with the diagonal on which equal values lie."""
    points = [(p[0], p[1]) for p in pairs or [] if len(p) == 2 and is_number(p[0]) and is_number(p[1])]
    if not points:
        return None
    low, high = min(min(p) for p in points), max(max(p) for p in points)
    span = (high - low) or 1.0
    spots = "".join(f"M{30 + (a - low) / span * 160:.1f} {170 - (b - low) / span * 160:.1f}h0" for a, b in points)
    frame = tag("rect", x=30, y=10, width=160, height=160, class_="frame")
    diagonal = tag("line", x1=30, y1=170, x2=190, y2=10, class_="axis")
    ends = [
        tag("text", number(low), x=30, y=184, class_="tick"),
        tag("text", number(high), x=190, y=184, class_="tick end"),
    ]
    names = [tag("text", "A", x=110, y=184, class_="tick mid"), tag("text", "B", x=24, y=94, class_="tick end")]
    return drawing(
        200, 190, "Values of A against values of B", frame, diagonal, tag("path", d=spots, class_="dot"), *ends, *names
    )


def time_bars(rows: Iterable[tuple[str, Any]]) -> Markup | None:
    """Measured times as bars: each row (label, milliseconds or {"median", "min", "max"}); whiskers show the spread."""
    data = []
    for label, time in rows:
        found = time if isinstance(time, dict) else {"median": time}
        if is_number(found.get("median")):
            middle = found["median"]
            ends = [found[k] if is_number(found.get(k)) else middle for k in ("min", "max")]
            data.append((label, middle, ends[0], ends[1]))
    if not data:
        return None
    top, wide = max(max(m, high) for _, m, _, high in data) or 1.0, 270
    left = 16 + 7 * min(24, max(len(label) for label, *_ in data))
    parts = []
    for i, (label, middle, low, high) in enumerate(data):
        y, end = 8 + i * 26, left + wide * middle / top
        parts.append(
            tag(
                "text",
                tag("title", label),
                label if len(label) <= 24 else label[:23] + "…",
                x=left - 8,
                y=y + 13,
                class_="label end",
            )
        )
        parts.append(tag("rect", x=left, y=y, width=max(end - left, 1.0), height=18, rx=3, class_="bar-fill"))
        if high > low:
            x1, x2 = left + wide * low / top, left + wide * high / top
            parts.append(
                tag("path", d=f"M{x1:.1f} {y + 5}v8M{x1:.1f} {y + 9}H{x2:.1f}M{x2:.1f} {y + 5}v8", class_="whisker")
            )
        parts.append(
            tag("text", duration(middle), x=left + wide * max(middle, high) / top + 8, y=y + 13, class_="label")
        )
    return drawing(left + wide + 76, 12 + len(data) * 26, "Measured times", *parts, css="chart bars")
