"""Labels beside points that hide neither points nor one another."""

from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

GAP = 5.0  # points from a point to its label; farther labels have a line to their point
RINGS = (1.0, 2.2, 3.6, 5.2, 7.0, 9.0, 11.5, 14.0, 17.0, 20.0)  # in GAPs
LEADER = 2.0  # GAPs from which on there is a line
MISLEADS = 6.0  # GAPs that a label goes farther rather than be nearer to another point than to its own


def place_labels(
    axes: Axes,
    points: list[tuple[float, float]],
    labels: list[str],
    size: float,
    lines: list[tuple[tuple[float, float], tuple[float, float]]] = (),
    colours: list[str] | None = None,
) -> None:
    """Write each label as near to its point as there is room, inside the axes; to be called with final limits.

    `lines` are upright or level lines, from point to point, that labels stay off, such as error bars. `colours` are
    those of the labels' words.

    Tried are places around the point, ring by ring, in 16 directions; the first that meets no point, line, label or
    edge is taken. A label without any such place takes the one that overlaps least.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # the layout, so that sizes are final
    scale = figure.dpi / 72
    at = axes.transData.transform(np.asarray(points, float).reshape(-1, 2))
    inside = axes.get_window_extent()
    taken = [Bbox.from_extents(x - 4 * scale, y - 4 * scale, x + 4 * scale, y + 4 * scale) for x, y in at]
    for ends in axes.transData.transform(np.asarray(lines, float).reshape(-1, 2)).reshape(-1, 2, 2):
        (left, bottom), (right, top) = ends.min(axis=0) - scale, ends.max(axis=0) + scale
        taken.append(Bbox.from_extents(left, bottom, right, top))
    for i in sorted(range(len(labels)), key=lambda i: (-_crowd(at, i), i)):
        colour = colours[i] if colours else "0.15"
        text = axes.annotate(
            labels[i], points[i], (0, 0), textcoords="offset points", fontsize=size, color=colour, zorder=6
        )
        box = text.get_window_extent()
        places = _places(at[i], box.width, box.height, scale)
        ring, box = min(places, key=lambda place: _cost(*place, taken, inside, _misleads(place[1], at, i)))
        text.set_position(((box.x0 - at[i][0]) / scale, (box.y0 - at[i][1]) / scale))
        taken.append(box)
        if ring >= LEADER or _misleads(box, at, i):
            ends = axes.transData.inverted().transform([at[i], _nearest(box, at[i])])
            axes.plot(*ends.T, color="0.6", lw=0.5, zorder=2, scalex=False, scaley=False)


def _crowd(at: np.ndarray, i: int) -> int:
    """How many points are near: the crowded choose first, since lonely ones find a place anyway."""
    return int((np.abs(at - at[i]).max(axis=1) < 60).sum())


def _places(point: np.ndarray, width: float, height: float, scale: float):
    """(ring, box) around a point, nearest first."""
    for ring, angle in product(RINGS, np.arange(16) * np.pi / 8):
        away = ring * GAP * scale
        x, y = point + away * np.array([np.cos(angle), np.sin(angle)])
        left = x if np.cos(angle) > 0.3 else x - width if np.cos(angle) < -0.3 else x - width / 2
        bottom = y if np.sin(angle) > 0.3 else y - height if np.sin(angle) < -0.3 else y - height / 2
        yield ring, Bbox.from_bounds(left, bottom, width, height)


def _nearest(box: Bbox, point: np.ndarray) -> np.ndarray:
    return np.clip(point, box.min, box.max)


def _misleads(box: Bbox, at: np.ndarray, i: int) -> bool:
    """Whether another point, not on the same spot, is nearer to the box than its own."""
    far = np.linalg.norm(at - np.clip(at, box.min, box.max), axis=1)
    elsewhere = np.abs(at - at[i]).max(axis=1) > 1
    return bool((far[elsewhere] < far[i]).any())


def _cost(ring: float, box: Bbox, taken: list[Bbox], inside: Bbox, misleads: bool) -> tuple[float, float]:
    """Overlap with what is there and with the outside, in pixels; then the distance."""
    shared = [Bbox.intersection(box, other) for other in taken]
    overlap = sum(part.width * part.height for part in shared if part is not None)
    within = Bbox.intersection(box, inside)
    outside = box.width * box.height - (within.width * within.height if within is not None else 0.0)
    return overlap + 2 * outside, ring + MISLEADS * misleads
