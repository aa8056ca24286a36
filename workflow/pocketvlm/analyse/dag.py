"""Draw the workflow's rule graph: Snakemake's own text in, an accessible inline SVG or Mermaid text out.

The layout is the layered one of Sugiyama, Tagawa and Toda (1981) at its plainest: a layer by longest path, an
order in each layer by barycentres, coordinates pulled towards the neighbours. It uses no randomness and
no program, so equal graphs give equal bytes.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from pocketvlm.errors import PocketvlmError

_DOT_NODE = re.compile(r'^\s*(\w+)\s*\[\s*label\s*=\s*"((?:[^"\\]|\\.)*)"')
_DOT_EDGE = re.compile(r"^\s*(\w+)\s*->\s*(\w+)")
_MERMAID_NODE = re.compile(r"^\s*(\w+)\[(.*)\]\s*$")
_MERMAID_EDGE = re.compile(r"^\s*(\w+)\s*-->\s*(\w+)")

ROW = 62.0
HEIGHT = 30.0
GAP = 18.0
MARGIN = 12.0
SWEEPS = 12


@dataclass(frozen=True)
class RuleGraph:
    """Rules by name, sorted, and edges from a rule to the rules that use its output."""

    rules: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]


def parse_rulegraph(text: str) -> RuleGraph:
    """Read what `snakemake --rulegraph dot` or `--rulegraph mermaid-js` printed.

    Lines that are neither a node nor an edge (messages on the same stream, styles) are passed over.

    Raises:
        PocketvlmError: the text holds no rule, or an edge to a node that was never named.
    """
    names: dict[str, str] = {}
    links: list[tuple[str, str]] = []
    for line in text.splitlines():
        if edge := _DOT_EDGE.match(line) or _MERMAID_EDGE.match(line):
            links.append((edge[1], edge[2]))
        elif (node := _DOT_NODE.match(line)) and node[1] not in ("node", "edge", "graph"):
            names[node[1]] = node[2].split("\\n")[0].replace('\\"', '"')
        elif node := _MERMAID_NODE.match(line):
            names[node[1]] = node[2].strip('"')
    if not names:
        raise PocketvlmError(
            "The rule graph holds no rule",
            do="pass what `snakemake --rulegraph dot` prints on stdout",
        )
    unknown = {end for link in links for end in link if end not in names}
    if unknown:
        raise PocketvlmError(
            f"The rule graph has edges to nodes without a name: {', '.join(sorted(unknown))}",
            do="pass the whole text that `snakemake --rulegraph dot` prints",
        )
    edges = {(names[a], names[b]) for a, b in links if names[a] != names[b]}
    return RuleGraph(tuple(sorted(set(names.values()))), tuple(sorted(edges)))


def _successors(graph: RuleGraph) -> dict[str, list[str]]:
    after: dict[str, list[str]] = defaultdict(list)
    for a, b in graph.edges:
        after[a].append(b)
    return after


def _reachable(graph: RuleGraph) -> dict[str, set[str]]:
    after = _successors(graph)
    known: dict[str, set[str]] = {}
    for rule in reversed(topological(graph)):
        known[rule] = set(after[rule]).union(*(known[b] for b in after[rule]))
    return known


def topological(graph: RuleGraph) -> list[str]:
    """Return the rules, each after all it depends on; ties by name.

    Raises:
        PocketvlmError: the graph has a cycle.
    """
    before: dict[str, set[str]] = {rule: set() for rule in graph.rules}
    for a, b in graph.edges:
        before[b].add(a)
    order: list[str] = []
    while before:
        ready = sorted(rule for rule, needs in before.items() if not needs)
        if not ready:
            raise PocketvlmError(
                f"The rule graph has a cycle among {', '.join(sorted(before))}",
                do="check the text it is read from",
            )
        order += ready
        for rule in ready:
            del before[rule]
        for needs in before.values():
            needs.difference_update(ready)
    return order


def reduce_edges(graph: RuleGraph) -> RuleGraph:
    """Leave out each edge that a longer way between the same rules implies (the transitive reduction)."""
    after, reach = _successors(graph), _reachable(graph)
    kept = tuple(
        (a, b) for a, b in graph.edges if not any(b in reach[middle] for middle in after[a] if middle != b)
    )
    return RuleGraph(graph.rules, kept)


def to_mermaid(graph: RuleGraph) -> str:
    """Return the graph as a Mermaid flowchart, for a README."""
    number = {rule: f"r{i}" for i, rule in enumerate(topological(graph))}
    lines = ["flowchart TB"]
    lines += [f'    {number[rule]}["{rule}"]' for rule in number]
    lines += [f"    {number[a]} --> {number[b]}" for a, b in graph.edges]
    return "\n".join(lines) + "\n"


@dataclass
class _Node:
    """A rule, or (empty name) a bend of an edge that crosses a layer."""

    name: str
    layer: int
    width: float
    x: float = 0.0


def _layers(graph: RuleGraph) -> dict[str, int]:
    order, after = topological(graph), _successors(graph)
    layer = dict.fromkeys(order, 0)
    for rule in order:
        for b in after[rule]:
            layer[b] = max(layer[b], layer[rule] + 1)
    has_input = {b for _, b in graph.edges}
    for rule in order:
        if rule not in has_input and after[rule]:
            layer[rule] = min(layer[b] for b in after[rule]) - 1
    return layer


def _crossings(rows: Sequence[list[int]], down: dict[int, list[int]]) -> int:
    count = 0
    for upper, lower in itertools.pairwise(rows):
        place = {node: i for i, node in enumerate(lower)}
        ends = [place[b] for a in upper for b in sorted(down[a], key=place.__getitem__)]
        count += sum(ends[i] > ends[j] for i in range(len(ends)) for j in range(i + 1, len(ends)))
    return count


def _order(rows: list[list[int]], up: dict[int, list[int]], down: dict[int, list[int]]) -> list[list[int]]:
    best, fewest = [list(row) for row in rows], _crossings(rows, down)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        indices = range(1, len(rows)) if forward else range(len(rows) - 2, -1, -1)
        neighbours = up if forward else down
        for i in indices:
            place = {node: j for j, node in enumerate(rows[i - 1 if forward else i + 1])}

            def centre(
                node: int,
                place: dict[int, int] = place,
                row: list[int] = rows[i],
                neighbours: dict[int, list[int]] = neighbours,
            ) -> float:
                linked = [place[other] for other in neighbours[node]]
                return sum(linked) / len(linked) if linked else float(row.index(node))

            rows[i] = sorted(rows[i], key=centre)
        if (now := _crossings(rows, down)) < fewest:
            best, fewest = [list(row) for row in rows], now
    return best


def _spread(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Return centres near the wanted ones that keep the order and the gap."""
    right = list(wanted)
    for i in range(1, len(right)):
        right[i] = max(right[i], right[i - 1] + (widths[i - 1] + widths[i]) / 2 + GAP)
    left = list(wanted)
    for i in range(len(left) - 2, -1, -1):
        left[i] = min(left[i], left[i + 1] - (widths[i] + widths[i + 1]) / 2 - GAP)
    return [(a + b) / 2 for a, b in zip(left, right, strict=True)]


def _arrange(graph: RuleGraph) -> tuple[list[_Node], list[list[int]]]:
    """Return nodes with coordinates, and each edge as the nodes it passes."""
    layer = _layers(graph)
    nodes = [_Node(rule, layer[rule], 20 + 7.3 * len(rule)) for rule in graph.rules]
    index = {rule: i for i, rule in enumerate(graph.rules)}
    up: dict[int, list[int]] = defaultdict(list)
    down: dict[int, list[int]] = defaultdict(list)
    paths: list[list[int]] = []
    for a, b in graph.edges:
        path = [index[a]]
        for level in range(layer[a] + 1, layer[b]):
            nodes.append(_Node("", level, 4.0))
            path.append(len(nodes) - 1)
        path.append(index[b])
        paths.append(path)
        for one, two in itertools.pairwise(path):
            down[one].append(two)
            up[two].append(one)
    depth = max(node.layer for node in nodes) + 1
    rows: list[list[int]] = [
        [i for i, node in enumerate(nodes) if node.layer == level] for level in range(depth)
    ]
    rows = _order(rows, up, down)
    for row in rows:
        at = 0.0
        for i in row:
            nodes[i].x = at + nodes[i].width / 2
            at += nodes[i].width + GAP
    for _ in range(4 * SWEEPS):
        for row in rows:
            wanted = []
            for i in row:
                linked = [nodes[j].x for j in (*up[i], *down[i])]
                wanted.append(sum(linked) / len(linked) if linked else nodes[i].x)
            for i, x in zip(row, _spread(wanted, [nodes[i].width for i in row]), strict=True):
                nodes[i].x = x
    leftmost = min(node.x - node.width / 2 for node in nodes)
    for node in nodes:
        node.x += MARGIN - leftmost
    return nodes, paths


def draw_svg(
    graph: RuleGraph,
    *,
    title: str = "Rule graph of the workflow",
    on_device: Collection[str] = (),
    identifier: str = "dag",
) -> str:
    """Return the graph as inline SVG text, drawn from top to bottom in `currentColor`.

    Args:
        graph: the rules; pass it through `reduce_edges` first when it is dense.
        title: the accessible name; the description lists every edge.
        on_device: rules to draw filled, because they touch a device.
        identifier: prefix of the ids, unique within the page.
    """
    nodes, paths = _arrange(graph)
    width = max(node.x + node.width / 2 for node in nodes) + MARGIN
    height = (max(node.layer for node in nodes)) * ROW + HEIGHT + 2 * MARGIN
    described = "; ".join(f"{a} feeds {b}" for a, b in graph.edges) or "no edges"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="dag" role="img" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'aria-labelledby="{identifier}-title {identifier}-desc">',
        f'<title id="{identifier}-title">{escape(title)}</title>',
        f'<desc id="{identifier}-desc">{len(graph.rules)} rules: {escape(described)}.</desc>',
        f'<defs><marker id="{identifier}-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 .8 7 4 0 7.2z" fill="currentColor"/></marker></defs>',
    ]
    for path in paths:
        points = []
        for step, i in enumerate(path):
            node = nodes[i]
            top = MARGIN + node.layer * ROW
            y = top + (HEIGHT if step == 0 else 0.0 if step == len(path) - 1 else HEIGHT / 2)
            points.append((node.x, y))
        drawn = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            half = (y1 - y0) / 2
            drawn += f"C{x0:.1f} {y0 + half:.1f} {x1:.1f} {y1 - half:.1f} {x1:.1f} {y1:.1f}"
        out.append(
            f'<path d="{drawn}" fill="none" stroke="currentColor" stroke-opacity=".55" stroke-width="1.2" '
            f'marker-end="url(#{identifier}-arrow)"/>'
        )
    for node in nodes:
        if not node.name:
            continue
        x, y = node.x - node.width / 2, MARGIN + node.layer * ROW
        kind = "rule on-device" if node.name in on_device else "rule"
        fill = ".16" if node.name in on_device else ".04"
        out.append(
            f'<g class="{kind}"><rect x="{x:.1f}" y="{y:.1f}" width="{node.width:.1f}" height="{HEIGHT:.0f}" '
            f'rx="6" fill="currentColor" fill-opacity="{fill}" stroke="currentColor" stroke-opacity=".6"/>'
            f'<text x="{node.x:.1f}" y="{y + 19.5:.1f}" text-anchor="middle" font-size="12" '
            f'fill="currentColor">{escape(node.name)}</text></g>'
        )
    out.append("</svg>")
    return "\n".join(out)
