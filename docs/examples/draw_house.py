"""Draws docs/images/house.svg: the packages of irshap, floor by floor, and who imports whom.

    python docs/examples/draw_house.py

Read from the imports of the source, so the picture is no kinder than the code.  A package stands one floor
above the highest that it imports; the number at an arrow counts the imports through it.
"""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).resolve().parents[2]
WIDTH, FLOOR, BOX, HEIGHT = 900, 64, 104, 30


def packages() -> nx.DiGraph:
    """An edge from each package to those it imports, with the number of imports as `count`."""
    counts: Counter[tuple[str, str]] = Counter()
    for top in ("irshap", "passes", "lowering"):
        for file in sorted((ROOT / top).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            own = parts[1] if parts[0] == "irshap" else parts[0]
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("irshap."):
                    counts[own, str(node.module).split(".")[1]] += 1
    graph = nx.DiGraph()
    graph.add_nodes_from({name for edge in counts for name in edge} - {"__init__", "__main__"})
    for (a, b), count in counts.items():
        if a != b and a in graph and b in graph:
            graph.add_edge(a, b, count=count)
    return graph


def svg(graph: nx.DiGraph) -> str:
    """The picture; arrows that a longer way makes plain anyway are left out."""
    floors = [sorted(f) for f in nx.topological_generations(graph.reverse())]
    place = {}
    for height, names in enumerate(floors):
        for i, name in enumerate(names):
            place[name] = (WIDTH * (i + 1) // (len(names) + 1), FLOOR * (len(floors) - height) - FLOOR // 2)
    lines = []
    for a, b in sorted(nx.transitive_reduction(graph).edges):
        (x1, y1), (x2, y2) = place[a], place[b]
        y1, y2 = y1 + HEIGHT // 2, y2 - HEIGHT // 2
        middle = f'x="{(x1 + x2) // 2 + 4}" y="{(y1 + y2) // 2}"'
        lines.append(f'<path d="M{x1} {y1} L{x2} {y2}" stroke="#888" marker-end="url(#tip)"/>')
        lines.append(f'<text {middle} font-size="10" fill="#888">{graph.edges[a, b]["count"]}</text>')
    for name, (x, y) in sorted(place.items()):
        corner = f'x="{x - BOX // 2}" y="{y - HEIGHT // 2}" width="{BOX}" height="{HEIGHT}"'
        lines.append(f'<rect {corner} rx="5" fill="#eef3fb" stroke="#47689c"/>')
        lines.append(f'<text x="{x}" y="{y + 4}" text-anchor="middle" font-size="13">{name}</text>')
    tip = '<marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{FLOOR * len(floors)}" '
    head += 'font-family="sans-serif" fill="none">'
    defs = f'<defs>{tip}<path d="M0 1 L7 4 L0 7" stroke="#888"/></marker></defs>'
    return "\n".join(
        [
            head,
            defs,
            *(s.replace("<text ", '<text fill="#222" ', 1) if "fill" not in s else s for s in lines),
            "</svg>\n",
        ]
    )


def main() -> None:
    graph = packages()
    target = ROOT / "docs" / "images" / "house.svg"
    target.write_text(svg(graph), encoding="utf-8")
    print(f"{target.relative_to(ROOT)}: {len(graph)} packages, {graph.number_of_edges()} arrows between them")


if __name__ == "__main__":
    main()
