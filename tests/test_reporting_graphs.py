"""The drawing of graphs as data: rows shared by both sides, folds, no overlaps; and the small charts."""

from __future__ import annotations

import base64
import struct
from typing import Any

import pytest
from test_reporting_data import compare, conv_graph, graph, matmul_graph, mutant, node, site, transformer

from graphcheck.reporting import charts, folding, layout, patchart, union, views, words
from graphcheck.reporting.graphs import drawings


def draw(result: dict[str, Any]) -> dict[str, Any]:
    pair = result["graphs"]
    options = {k: result[k] for k in ("alignment", "interface", "divergence")}
    return drawings(pair["a"], pair["b"], **options)[-1]


def folds(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [f for item in items if "items" in item for f in (item, *folds(item["items"]))]


def atoms_of(items: list[dict[str, Any]]) -> list[int]:
    return [a for item in items for a in ([item["atom"]] if "atom" in item else atoms_of(item["items"]))]


def test_partners_share_a_row_and_the_rest_stands_apart() -> None:
    made = draw(compare())
    by_status = {
        status: [v for v in made["verts"] if v[3] == status and v[0] == "n"]
        for status in ("same", "a", "b", "different")
    }
    assert [v[1:3] for v in by_status["same"]] == [[2, 3]]
    # Reshape follows x on B and Conv on A: only what has paired producers is paired by place.
    assert len(by_status["a"]) == 2 and len(by_status["b"]) == 3
    assert [v[:3] for v in made["verts"] if v[0] != "n"] == [["i", 0, 0], ["o", 0, 0]]


def test_edges_only_go_down() -> None:
    for result in (compare(), mutant()):
        a, b = (union.side(result["graphs"][s]) for s in "ab")
        merged = union.merge(a, b, result["alignment"], {"i": [(0, 0)], "o": [(0, 0)]})
        assert all(merged.rows[u] < merged.rows[v] for s in "ab" for u, v in merged.edges[s])


def test_crossed_partners_close_no_cycle() -> None:
    chain = graph(
        [node(0, "Neg", ["x"], ["p"]), node(1, "Neg", ["p"], ["q"]), node(2, "Abs", ["q"], ["y"])], ["x"], ["y"]
    )
    made = draw(compare(chain, chain, [[0, 1, "same"], [1, 0, "same"], [2, 2, "same"]]))
    apart = [v for v in made["verts"] if v[5] is not None]
    assert len(apart) == 2 and all(v[3] == "same" for v in apart)


@pytest.mark.parametrize(("values", "kept"), [([], 0), ([3, 1, 2], 2), ([1, 2, 3], 3), ([3, 2, 1], 1)])
def test_longest_increasing_run(values: list[int], kept: int) -> None:
    found = sorted(union._increasing(values))
    assert len(found) == kept and [values[i] for i in found] == sorted(values[i] for i in found)


def test_constants_are_not_drawn_unless_they_diverge() -> None:
    nodes = [node(0, "Constant", [], ["k"]), node(1, "Add", ["x", "k"], ["y"])]
    assert [k for k in union.side(graph(nodes, ["x"], ["y"])).keys if k[0] == "n"] == [("n", 1)]
    assert ("n", 0) in union.side(graph(nodes, ["x"], ["y"]), frozenset([0])).keys


def test_shape_arithmetic_is_left_out_of_the_calm_drawing() -> None:
    nodes = [
        node(0, "Shape", ["x"], ["s"]),
        node(1, "Gather", ["s", "w0"], ["d"]),
        node(2, "Reshape", ["x", "d"], ["r"]),
        node(3, "Transpose", ["w1"], ["t"]),
        node(4, "MatMul", ["r", "t"], ["y"]),
    ]
    calm, full = drawings(graph(nodes, ["x"], ["y"]))
    assert [v[1] for v in calm["verts"] if v[0] == "n"] == [2, 4] and calm["hidden"] == 3
    assert sorted(v[1] for v in full["verts"] if v[0] == "n") == [0, 1, 2, 3, 4] and full["hidden"] == 0
    # A light node whose partner depends on the input, or differs, stays in sight.
    pair = compare(graph(nodes, ["x"], ["y"]), matmul_graph(), [[3, 1, "same"], [1, 0, "different"]])
    calm, _ = drawings(pair["graphs"]["a"], pair["graphs"]["b"], alignment=pair["alignment"])
    assert {v[1] for v in calm["verts"] if v[0] == "n"} >= {1, 3}


def test_twelve_equal_blocks_fold_into_one_box() -> None:
    big = transformer(12)
    made = draw(compare(big, big, [[n["id"], n["id"], "same"] for n in big["nodes"]]))
    repeats = [f for f in folds(made["tree"]) if f["kind"] == "repeat"]
    assert [f["times"] for f in repeats] == [12] and not repeats[0]["open"]
    assert [f["title"] for f in repeats[0]["items"]][:2] == ["layer.0", "layer.1"] or repeats[0]["items"][0][
        "title"
    ].endswith("0")
    assert sorted(atoms_of(made["tree"])) == list(range(len(made["atoms"])))


def test_the_divergent_block_is_open_and_pointed_at() -> None:
    made = draw(mutant())
    goto = made["verts"][made["goto"]]
    assert goto[4] == "divergence" and goto[1] is None
    atom = next(i for i, a in enumerate(made["atoms"]) if made["goto"] in [v[0] for v in a["v"]])
    assert all(f["open"] for f in folds(made["tree"]) if atom in atoms_of(f["items"]))
    assert any(f["kind"] == "repeat" and not f["open"] and f["times"] == 3 for f in folds(made["tree"]))


def test_what_follows_a_divergence_is_paired_by_place() -> None:
    made = draw(mutant())
    assert not [v for v in made["verts"] if v[3] == "a"] and [v[2] for v in made["verts"] if v[3] == "b"] == [
        made["verts"][made["goto"]][2]
    ]
    assert any(v[3] == "different" for v in made["verts"])


@pytest.mark.parametrize("result", [compare(), mutant()], ids=["small", "mutant"])
def test_boxes_of_a_row_do_not_overlap(result: dict[str, Any]) -> None:
    for atom in draw(result)["atoms"]:
        for column in (2, 3):
            rows: dict[int, list[float]] = {}
            for v in atom["v"]:
                if v[column] is not None:
                    rows.setdefault(v[1], []).append(v[column])
            for xs in rows.values():
                assert all(y - x > 0.99 for x, y in zip(sorted(xs), sorted(xs)[1:], strict=False))


def test_spread_keeps_order_and_room() -> None:
    assert layout._spread([0.0, 0.0, 5.0], [0.5, 0.5, 0.5]) == [-0.5, 0.5, 5.0]


def test_graph_without_nodes_and_without_waist() -> None:
    empty = graph([], ["x"], ["x"])
    assert drawings(empty)[0]["verts"]
    skips = [node(i, "Neg", [f"t{i - 1}" if i else "x"], [f"t{i}"]) for i in range(120)]
    skips += [node(120 + i, "Add", [f"t{119 - i}", f"u{i - 1}" if i else "t119"], [f"u{i}"]) for i in range(120)]
    made = drawings(graph(skips, ["x"], ["u119"]))[0]
    assert len(made["atoms"]) > 2 and max(a["rows"] for a in made["atoms"]) <= 2 * folding.LONG


def detector(blocks: int = 3) -> dict[str, Any]:
    """A YOLO in small: blocks of a Conv and two parts that a Concat joins, the first of them read by a Concat of the neck."""
    nodes: list[dict[str, Any]] = []

    def add(op: str, *inputs: str) -> str:
        nodes.append(node(len(nodes), op, list(inputs), [f"t{len(nodes)}"], f"/model.{len(nodes)}/{op}"))
        return f"t{len(nodes) - 1}"

    value, ends = "x", []
    for _ in range(blocks):
        conv = add("Conv", value)
        value = conv = add("Mul", conv, add("Sigmoid", conv))
        for _ in range(2):
            value = add("Add", value, add("Relu", add("Conv", value)))
        value = add("Concat", conv, value)
        ends.append(value)
    for _ in range(20):
        value = add("Neg", value)
    for end in reversed(ends):
        value = add("Concat", value, end)
    return graph(nodes, ["x"], [value])


def repeats(marks: dict[str, dict[str, str]] | None = None) -> list[dict[str, Any]]:
    """The repeated blocks with a Conv in the drawing of a detector."""
    made = drawings(detector(), marks=marks)[0]
    return [f for f in folds(made["tree"]) if f["kind"] == "repeat" and "Conv" in f["note"]]


def test_the_blocks_of_a_detector_fold_though_its_neck_reads_them(monkeypatch: pytest.MonkeyPatch) -> None:
    (fold,) = repeats()
    assert fold["times"] == 3 and not fold["open"] and all(len(list(atoms_of(b["items"]))) > 1 for b in fold["items"])
    monkeypatch.setattr(folding, "FAR", 1000)
    assert [f["times"] for f in repeats()] != [3]


def test_what_is_refused_stays_in_its_fold_and_what_is_found_stands_outside() -> None:
    name = detector()["nodes"][0]["name"]
    (fold,) = repeats({"a": {name: "refused"}})
    assert fold["times"] == 3 and not fold["open"]
    assert [f["times"] for f in repeats({"a": {name: "patch embedding"}})] == [2]


def test_unsorted_graph_is_drawn_without_its_backward_edge() -> None:
    made = drawings(graph([node(0, "Neg", ["late"], ["y"]), node(1, "Abs", ["x"], ["late"])], ["x"], ["y"]))[-1]
    assert len(made["edges"]["a"]) == 2


def test_module_names_lose_their_common_root() -> None:
    assert folding._without_root(["/m/a/x", "/m/b", ""]) == ["a.x", "b", ""]


def pixels(picture: str) -> tuple[int, int]:
    data = base64.b64decode(picture.split(",")[1])
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_pictures_have_their_size_and_escape_their_labels() -> None:
    assert pixels(charts.png([[(0, 0, 0)] * 5] * 3)) == (5, 3)
    assert "&lt;b&gt;" in str(charts.time_bars([("<b>", 1.0)])) and "<b>" not in str(charts.time_bars([("<b>", 1.0)]))


def test_charts_without_data_are_left_out() -> None:
    assert (
        charts.histogram([]) is None and charts.histogram(None) is None and charts.curve([{"deviation": 0.0}]) is None
    )
    assert charts.heatmap([[0.0]]) is None and charts.scatter([]) is None and charts.time_bars([("a", None)]) is None
    assert (
        patchart.patch_picture(site() | {"kernel_shape": [2, 2, 2]}) is None and patchart.filters_picture(None) is None
    )


def test_curve_marks_what_is_above_the_spread() -> None:
    points = [{"a": "p", "deviation": 1e-7, "spread": 1e-6}, {"a": "q", "deviation": 1e-3, "spread": 1e-6, "node": 4}]
    drawn = str(charts.curve(points))
    assert drawn.count("dot over") == 1 and 'href="#node=a:4"' in drawn


@pytest.mark.parametrize(
    ("pattern", "first"),
    [
        ("b c (h p1) (w p2) -> b (h w) (p1 p2 c)", [(0, 0, 0), (0, 0, 1)]),
        ("b c (h p1) (w p2) -> b (h w) (c p2 p1)", [(0, 0, 0), (1, 0, 0)]),
        (None, [(0, 0, 0), (0, 1, 0)]),
    ],
)
def test_row_of_the_matrix_follows_the_pattern(pattern: str | None, first: list[tuple[int, int, int]]) -> None:
    cells, _ = patchart._order(pattern, 4, 4, 3)
    assert cells[:2] == first and len(set(cells)) == 48
    assert patchart.patch_picture(site(pattern), 8, 8) is not None


def test_an_un_embedding_is_drawn_the_other_way_round() -> None:
    back = site("b (h w) (p2 p1 c) -> b c (h p1) (w p2)") | {"kind": "patch un-embedding", "in_channels": 48, "out_channels": 3}
    there = site("b c (h p1) (w p2) -> b (h w) (p2 p1 c)") | {"kind": "patch embedding", "in_channels": 3}
    drawn, other = (str(patchart.patch_picture(each, 8, 8)) for each in (back, there))
    assert "in the order (p2 p1 c), become the patch" in drawn and "2 × 2 = 4 patches" in drawn and "c = 2 (blue)" in drawn
    assert "become the patch" not in other and "in the order (p2 p1 c)" in other
    assert "in the order (c p1 p2), become the patch" in str(patchart.patch_picture(back | {"pattern": None}, 8, 8))
    assert patchart.patch_picture(back | {"kernel_shape": [4]}, 8, 8) is None


def test_the_size_of_an_image_is_that_of_the_output_where_it_is_written() -> None:
    shapes = {"inputs": [{"name": "x", "shape": [1, 3, 8, 8]}], "outputs": [{"name": "y", "shape": [1, 3, 16, 32]}]}
    row = site(None) | {"layout": "NCHW", "input": "x", "output": "y"}
    result = {"model": shapes, "patch_embeddings": [row], "patch_unembeddings": [row | {"kind": "patch un-embedding"}]}
    assert views.image_sizes(result) == [(8, 8), (16, 32)]


def test_numbers_for_people() -> None:
    assert [words.number(x) for x in (None, True, 0, 12345, 0.25, 1e-9, "NaN")] == [
        "–",
        "yes",
        "0",
        "12\u202f345",
        "0.25",
        "1.00e-09",
        "NaN",
    ]
    assert words.probability(3.1e-16) == "below 10⁻¹⁵" and words.probability(0.01) == "1.0e-02"
    assert words.shape([1, "N", None]) == "1×N×?" and words.shape([]) == "scalar" and words.size(1234567) == "1.2 MB"
    assert words.short("abcdefghij", 5) == "ab…ij" and words.clean("a\0b\ud800") == "a\ufffdb\ufffd"


def test_two_long_names_stay_two_names() -> None:
    assert words.clean("x" * 9_000 + "a") != words.clean("x" * 9_000 + "b")


def test_one_side_alone_points_at_its_marks() -> None:
    made = drawings(conv_graph(), marks={"a": {"Conv_0": "patch embedding"}})[0]
    assert made["verts"][made["goto"]][4] == "patch embedding" and {v[3] for v in made["verts"]} == {"plain"}
    assert drawings(matmul_graph())[0]["goto"] is None


def test_without_alignment_nothing_is_claimed() -> None:
    made = draw(compare(alignment=[]))
    assert {v[3] for v in made["verts"] if v[0] == "n"} == {"plain"} and len(made["verts"]) == 3 + 4 + 2


def test_windows_count_pads_and_dilations() -> None:
    focus = site(None) | {"kernel_shape": [6, 6], "strides": [2, 2], "pads": [2, 2, 2, 2], "dilations": [1, 1]}
    assert "112 × 112 = 12544 windows" in str(patchart.patch_picture(focus, 224, 224))
    wide = focus | {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [2, 2]}
    assert "4 × 4 = 16 windows" in str(patchart.patch_picture(wide, 8, 8))


def test_histogram_has_its_scale_in_ulps_and_spreads_too() -> None:
    drawn = str(charts.histogram([[1e-7, 5], [1e-6, 3]], {"1 ulp": 1e-7, "spread": 1e-6}))
    assert ">ulps<" in drawn and ">spreads<" in drawn and ">0.1<" in drawn and drawn.count(">10<") == 2


def test_behind_a_rounded_constant_nothing_is_called_different() -> None:
    result = mutant()
    for rounded in (False, True):
        made = drawings(
            *result["graphs"].values(), alignment=result["alignment"], divergence=result["divergence"], rounded=rounded
        )
        statuses, marks = ({row[i] for row in made[0]["verts"]} for i in (3, 4))
        assert ("rounded" in statuses, "different" in statuses) == (rounded, not rounded)
        assert marks == {"", "rounding" if rounded else "divergence"}
