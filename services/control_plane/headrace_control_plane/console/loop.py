"""The drawing of the loop: where its parts stand, on a wide page and on a narrow one, as SVG. Pure.

What changes is in elements with a `data-k`; the page sets their text and class as figures come in, so that the drawing, its
focus and its movement stay.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from headrace_control_plane.console.markup import text

_WIDTH: Final = 158
_HEIGHT: Final = 64


@dataclass(frozen=True, slots=True)
class Node:
    """A part of the loop.

    Attributes:
        key: of what is told of it.
        title: for people.
        kind: service, store or outside.
        link: page that tells more.
    """

    key: str
    title: str
    kind: str
    link: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """What flows from one part to the next.

    Attributes:
        key: of what is told of it.
        words: what flows, for those who can't see it.
    """

    key: str
    start: str
    end: str
    words: str


@dataclass(frozen=True, slots=True)
class Path:
    """How an edge is drawn: its corners, and where its label stands.

    Attributes:
        anchor: of the label: start, middle or end.
        prefix: what the label begins with, where there is room.
    """

    corners: tuple[tuple[float, float], ...]
    label: tuple[float, float]
    anchor: str = "middle"
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Places, in units of the drawing.

    Attributes:
        places: upper left corner of each node.
        paths: by edge.
    """

    name: str
    width: int
    height: int
    places: Mapping[str, tuple[float, float]]
    paths: Mapping[str, Path]


NODES: Final = (
    Node("clients", "Clients", "outside"),
    Node("gateway", "Gateway", "service"),
    Node("kafka", "Kafka", "store"),
    Node("feature-worker", "Feature worker", "service"),
    Node("redis", "Redis", "store"),
    Node("sample-joiner", "Sample joiner", "service"),
    Node("samples", "Samples", "store"),
    Node("trainer", "Trainer", "service"),
    Node("versions", "Model versions", "store", "/models"),
    Node("validator", "Validator", "service", "/models"),
    Node("deployer", "Deployer", "service", "/workflows"),
    Node("model-server", "Model server", "service"),
)

EDGES: Final = (
    Edge("events", "clients", "gateway", "events"),
    Edge("answers", "gateway", "clients", "recommendations"),
    Edge("produced", "gateway", "kafka", "events and feature logs"),
    Edge("featured", "kafka", "feature-worker", "events"),
    Edge("views", "feature-worker", "redis", "feature values"),
    Edge("reads", "redis", "gateway", "features of a request"),
    Edge("joined", "kafka", "sample-joiner", "events and feature logs"),
    Edge("sampled", "sample-joiner", "samples", "samples and corrections"),
    Edge("learned", "samples", "trainer", "samples"),
    Edge("generated", "trainer", "versions", "new versions"),
    Edge("checked", "versions", "validator", "candidates"),
    Edge("passed", "validator", "deployer", "validated versions"),
    Edge("loaded", "deployer", "model-server", "deployments"),
    Edge("scores", "model-server", "gateway", "predictions"),
)


def wide() -> Layout:
    """Five columns: what serves and streams on top, what learns on its way back below."""
    x = [6, 268, 506, 744, 982]
    y = [64, 196, 328]
    places = {
        "clients": (x[0], y[0]), "gateway": (x[1], y[0]), "kafka": (x[2], y[0]), "feature-worker": (x[3], y[0]),
        "redis": (x[4], y[0]), "sample-joiner": (x[3], y[1]), "samples": (x[4], y[1]), "trainer": (x[4], y[2]),
        "versions": (x[3], y[2]), "validator": (x[2], y[2]), "deployer": (x[1], y[2]), "model-server": (x[1], y[1]),
    }  # fmt: skip
    middle = [row + _HEIGHT / 2 for row in y]
    centre = [column + _WIDTH / 2 for column in x]

    def across(row: int, start: int, shift: float = 0.0, prefix: str = "", *, back: bool = False) -> Path:
        left, right, at = x[start] + _WIDTH, x[start + 1], middle[row] + shift
        corners = ((right, at), (left, at)) if back else ((left, at), (right, at))
        return Path(corners, ((left + right) / 2, at + (18 if shift > 0 else -9)), prefix=prefix)

    def up(column: int, row: int) -> Path:
        at = (y[row] + y[row - 1] + _HEIGHT) / 2 + 4
        return Path(
            ((centre[column], y[row]), (centre[column], y[row - 1] + _HEIGHT)), (centre[column] + 12, at), "start"
        )

    paths = {
        "events": across(0, 0, -12, "events "), "answers": across(0, 0, 12, "answers ", back=True), "produced": across(0, 1),
        "featured": across(0, 2), "views": across(0, 3),
        "reads": Path(
            ((centre[4], y[0]), (centre[4], 24), (centre[1], 24), (centre[1], y[0])),
            ((centre[4] + centre[1]) / 2, 15),
            prefix="features ",
        ),
        "joined": Path(
            ((centre[2], y[0] + _HEIGHT), (centre[2], middle[1]), (x[3], middle[1])),
            ((centre[2] + x[3]) / 2 + 14, middle[1] - 9),
        ),
        "sampled": across(1, 3),
        "learned": Path(
            ((centre[4], y[1] + _HEIGHT), (centre[4], y[2])), (centre[4] + 12, (y[1] + y[2] + _HEIGHT) / 2 + 4), "start"
        ),
        "generated": across(2, 3, back=True), "checked": across(2, 2, back=True), "passed": across(2, 1, back=True),
        "loaded": up(1, 2), "scores": up(1, 1),
    }  # fmt: skip
    return Layout("wide", x[4] + _WIDTH + 8, y[2] + _HEIGHT + 8, places, paths)


def narrow() -> Layout:
    """Two columns: down on the left, and back up on the right."""
    left, right = 20, 204
    y = [8 + 106 * n for n in range(7)]
    down = ["clients", "gateway", "kafka", "feature-worker", "redis", "sample-joiner", "samples"]
    back = ["model-server", "deployer", "validator", "versions", "trainer"]
    places: dict[str, tuple[float, float]] = {key: (left, y[n]) for n, key in enumerate(down)}
    places |= {key: (right, y[n + 2]) for n, key in enumerate(back)}
    centre = {left: left + _WIDTH / 2, right: right + _WIDTH / 2}
    gutter = (left + _WIDTH + right) / 2

    def vertical(column: int, start: int, end: int, shift: float = 0.0, prefix: str = "") -> Path:
        x = centre[column] + shift
        first, last = (y[start] + _HEIGHT, y[end]) if end > start else (y[start], y[end] + _HEIGHT)
        before = shift < 0
        label = (x - 10 if before else x + 10, (first + last) / 2 + 4)
        return Path(((x, first), (x, last)), label, "end" if before else "start", prefix)

    middle = [row + _HEIGHT / 2 for row in y]
    paths = {
        "events": vertical(left, 0, 1, -14, "events "), "answers": vertical(left, 1, 0, 14, "answers "),
        "produced": vertical(left, 1, 2), "featured": vertical(left, 2, 3), "views": vertical(left, 3, 4),
        "reads": Path(((left, middle[4]), (8, middle[4]), (8, middle[1]), (left, middle[1])), (14, y[4] - 17), "start"),
        "joined": Path(
            ((left + _WIDTH, middle[2]), (gutter, middle[2]), (gutter, middle[5]), (left + _WIDTH, middle[5])),
            (gutter - 4, y[5] - 17), "end",
        ),
        "sampled": vertical(left, 5, 6),
        "learned": Path(((left + _WIDTH, middle[6]), (right, middle[6])), (gutter, middle[6] - 9)),
        "generated": vertical(right, 6, 5), "checked": vertical(right, 5, 4), "passed": vertical(right, 4, 3),
        "loaded": vertical(right, 3, 2),
        "scores": Path(
            ((centre[right], y[2]), (centre[right], middle[1]), (left + _WIDTH, middle[1])),
            (centre[right] + 10, (middle[1] + y[2]) / 2 + 10), "start",
        ),
    }  # fmt: skip
    return Layout("narrow", right + _WIDTH + 8, int(y[6] + _HEIGHT + 8), places, paths)


def svg(layout: Layout) -> str:
    """The drawing without figures yet."""
    return "".join(_svg(layout))


def _svg(layout: Layout) -> Iterator[str]:
    name = layout.name
    yield (
        f'<svg class="loop {name}" viewBox="0 0 {layout.width} {layout.height}" role="group" '
        f'aria-label="The loop from events to answers" xmlns="http://www.w3.org/2000/svg">'
        f'<defs><marker id="tip-{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M1 1 7 4 1 7" class="tip"/></marker></defs>'
    )
    for edge in EDGES:
        yield _edge(edge, layout.paths[edge.key], name)
    for node in NODES:
        yield _node(node, *layout.places[node.key])
    yield "</svg>"


def _edge(edge: Edge, path: Path, name: str) -> str:
    drawn = _rounded(path.corners)
    x, y = path.label
    return (
        f'<g class="edge" data-k="edge:{edge.key}"><title>{text(edge.words)}</title>'
        f'<path class="bed" d="{drawn}" marker-end="url(#tip-{name})"/><path class="water" d="{drawn}"/>'
        f'<text x="{x:g}" y="{y:g}" text-anchor="{path.anchor}">{text(path.prefix)}'
        f'<tspan data-k="label:{edge.key}"></tspan></text></g>'
    )


def _node(node: Node, x: float, y: float) -> str:
    body = (
        f'<g class="node {node.kind}" data-k="node:{node.key}">'
        f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="9"/>'
        f'<circle cx="{x + _WIDTH - 13:g}" cy="{y + 13:g}" r="3.5"/>'
        f'<text class="name" x="{x + 13:g}" y="{y + 26:g}">{text(node.title)}</text>'
        f'<text class="told" x="{x + 13:g}" y="{y + 47:g}" data-k="told:{node.key}"></text></g>'
    )
    if not node.link:
        return body
    return f'<a href="{node.link}" aria-label="{text(node.title)}: more">{body}</a>'


def _rounded(corners: tuple[tuple[float, float], ...], radius: float = 10.0) -> str:
    """A path through corners, each turned with a radius."""
    parts = [f"M{corners[0][0]:g} {corners[0][1]:g}"]
    for before, at, after in zip(corners, corners[1:], corners[2:], strict=False):
        (ax, ay), (bx, by) = _toward(at, before, radius), _toward(at, after, radius)
        parts.append(f"L{ax:g} {ay:g}Q{at[0]:g} {at[1]:g} {bx:g} {by:g}")
    parts.append(f"L{corners[-1][0]:g} {corners[-1][1]:g}")
    return "".join(parts)


def _toward(start: tuple[float, float], end: tuple[float, float], length: float) -> tuple[float, float]:
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = min(1.0, length / (abs(dx) + abs(dy)))
    return start[0] + dx * share, start[1] + dy * share
