"""The rule graph: what Snakemake prints is read right and drawn the same every time."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pocketvlm.analyse import dag
from pocketvlm.errors import PocketvlmError

DOT = """Building DAG of jobs...
digraph snakemake_dag {
    graph[bgcolor=white, margin=0];
    node[shape=box, style=rounded, fontname=sans,                 fontsize=10, penwidth=2];
    edge[penwidth=2, color=grey];
\t0[label = "all", color = "0.00 0.6 0.85", style="rounded"];
\t1[label = "measure", color = "0.50 0.6 0.85", style="rounded"];
\t2[label = "build_bundle", color = "0.17 0.6 0.85", style="rounded"];
\t3[label = "fetch_source", color = "0.33 0.6 0.85", style="rounded"];
\t1 -> 0
\t2 -> 0
\t2 -> 1
\t3 -> 2
}
"""
RULES = ("all", "build_bundle", "fetch_source", "measure")
EDGES = (
    ("build_bundle", "all"),
    ("build_bundle", "measure"),
    ("fetch_source", "build_bundle"),
    ("measure", "all"),
)


def test_dot_and_mermaid_give_the_same_graph() -> None:
    graph = dag.parse_rulegraph(DOT)
    assert graph == dag.RuleGraph(RULES, EDGES)
    assert dag.parse_rulegraph(dag.to_mermaid(graph)) == graph


@pytest.mark.parametrize("kind", ["dot", "mermaid-js"])
def test_reads_what_snakemake_prints(tmp_path: Path, kind: str) -> None:
    (tmp_path / "Snakefile").write_text(
        'rule all:\n    input: "c"\nrule one:\n    output: "a"\n    shell: "touch a"\n'
        'rule two:\n    input: "a"\n    output: "c"\n    shell: "touch c"\n'
    )
    text = subprocess.run(
        [sys.executable, "-m", "snakemake", "--rulegraph", kind],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    graph = dag.parse_rulegraph(text)
    assert graph.rules == ("all", "one", "two")
    assert graph.edges == (("one", "two"), ("two", "all"))


def test_reduction_drops_only_what_is_implied() -> None:
    reduced = dag.reduce_edges(dag.RuleGraph(RULES, EDGES))
    assert set(EDGES) - set(reduced.edges) == {("build_bundle", "all")}


def test_svg_is_accessible_deterministic_and_points_downwards() -> None:
    graph = dag.parse_rulegraph(DOT)
    svg = dag.draw_svg(graph, on_device=["measure"])
    assert svg == dag.draw_svg(dag.parse_rulegraph(DOT), on_device=["measure"])
    root = ET.fromstring(svg)
    name = "{http://www.w3.org/2000/svg}"
    assert root.find(f"{name}title") is not None
    assert "fetch_source feeds build_bundle" in (root.findtext(f"{name}desc") or "")
    height = {
        group.findtext(f"{name}text"): float(group.find(f"{name}rect").get("y"))  # type: ignore[union-attr,arg-type]
        for group in root.iter(f"{name}g")
    }
    assert all(height[a] < height[b] for a, b in graph.edges)
    assert len(re.findall("marker-end", svg)) == len(EDGES)


def test_boxes_of_a_layer_do_not_overlap() -> None:
    wide = dag.RuleGraph(
        tuple(sorted(["all", *(f"a_rather_long_name_{i}" for i in range(7))])),
        tuple(sorted((f"a_rather_long_name_{i}", "all") for i in range(7))),
    )
    root = ET.fromstring(dag.draw_svg(wide))
    boxes = sorted(
        (float(r.get("y", "")), float(r.get("x", "")), float(r.get("width", "")))
        for r in root.iter("{http://www.w3.org/2000/svg}rect")
    )
    for (y0, x0, width), (y1, x1, _) in itertools.pairwise(boxes):
        assert y0 != y1 or x0 + width < x1


def test_names_are_escaped() -> None:
    graph = dag.RuleGraph(("<b>&", "all"), (("<b>&", "all"),))
    assert "<b>" not in dag.draw_svg(graph)
    ET.fromstring(dag.draw_svg(graph))


@pytest.mark.parametrize("text", ["", "error: no rules", "digraph {\n}"])
def test_no_rules_is_an_error(text: str) -> None:
    with pytest.raises(PocketvlmError, match="no rule"):
        dag.parse_rulegraph(text)


def test_a_cycle_is_an_error() -> None:
    with pytest.raises(PocketvlmError, match="cycle"):
        dag.draw_svg(dag.RuleGraph(("a", "b"), (("a", "b"), ("b", "a"))))
