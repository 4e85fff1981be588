"""What ``mmcl bench deploy`` says of a graph: its multiplications, what they are a share of, what takes the time."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from functools import partial

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mmcl.bench import main  # noqa: E402
from mmcl.benchmarks import deploy, roof  # noqa: E402
from mmcl.benchmarks.deploy_forms import made_clip  # noqa: E402
from mmcl.benchmarks.operators import operators_of, operators_table  # noqa: E402
from mmcl.benchmarks.roof import Roof, best_products, compare_under_roofs, roofs_in_words  # noqa: E402
from mmcl.deploy.graph_network import Graph  # noqa: E402
from mmcl.encoders import lean  # noqa: E402
from mmcl.encoders.counting import count_products  # noqa: E402
from mmcl.encoders.ctrgcn import lean_units  # noqa: E402
from mmcl.models.bundle import load_bundle  # noqa: E402
from mmcl.models.description import graphs_in  # noqa: E402


def test_a_share_is_of_two_operations_a_multiplication() -> None:
    best = Roof("fp32", "torch.mm", 1024, 2, rate=100e9)
    assert best.share(products=900e6, seconds=0.0225) == pytest.approx(0.8)
    lines = [best.facts(1, 1), {"roof": asdict(Roof("fp32", "torch.mm", 1024, 1, 50e9))}, {"variant": "without"}]
    assert roofs_in_words(lines).endswith("fp32 torch.mm of 1024 x 1024, 50 on 1 thread(s), 100 on 2 thread(s).")


def test_every_product_computes_what_it_is_counted_for() -> None:
    for precision in ("fp32", "bf16", "int8"):
        for product in roof._products(precision, 1, "cpu", (16, 24)):
            found = product.call()
            found = found[0] if isinstance(found, list) else found
            assert tuple(found.shape) == (product.size, product.size), product.name
            assert "int32" in str(found.dtype) or precision != "int8"
    best = best_products(("fp32", "int8"), 1, seconds=0.0, sizes=(8, 96))
    assert {name: product.size for name, product in best.items()} == {"fp32": 96, "int8": 96}  # calls cost, too
    times, roofs = compare_under_roofs({"nothing": lambda: None}, best, 0.0, threads=1)
    assert list(times) == ["nothing"] and roofs.keys() == best.keys() and roofs["fp32"].rate > 0


def test_multiplications_of_a_graph_are_those_that_were_traced(graphs, monkeypatch) -> None:
    bundle = load_bundle(graphs / "bundle")
    for module in (lean, lean_units):  # as a tracer sees it
        monkeypatch.setattr(module, "channels_outside", lambda x: False)
    for bodies in (1, 2):
        clip = made_clip(bundle, bodies, 0)
        expected = count_products(Graph(bundle), clip)
        for precision, path in graphs_in(graphs / "bundle").items():
            found = operators_of(path, clip.numpy(), runs=1)
            assert sum(each.products for each in found) == expected, precision
    kinds = {(each.name, each.numbers) for each in found}  # of the last one, in integers
    assert {("QLinearConv", "int8"), ("QLinearMatMul", "int8"), ("MatMul", "fp32"), ("Shape", "indices")} <= kinds
    assert ("QuantizeLinear", "between") in kinds and all(each.seconds >= 0 for each in found)


def test_the_table_of_operators_sums_up_what_is_small() -> None:
    rows = [("Conv", "int8", 3, 0.006, 2e6), ("MatMul", "fp32", 2, 0.00399, 1e6), ("Shape", "indices", 9, 0.00001, 0)]
    keys = ("name", "numbers", "calls", "seconds", "products")
    lines = operators_table([dict(zip(keys, row, strict=True)) for row in rows]).splitlines()
    assert lines[0] == "Time by numbers: int8 60.0%, fp32 39.9%, indices 0.1%."
    assert lines[4:] == ["| Conv | int8 | 3 | 6.00 | 60.0% | 2.0 |", "| MatMul | fp32 | 2 | 3.99 | 39.9% | 1.0 |",
                         "| all others | | | 0.01 | 0.1% | |"]  # fmt: skip


def test_the_verb_prints_shares_and_what_is_left_in_single_precision(graphs, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(deploy, "cold_start", lambda *_: 0.0)
    monkeypatch.setattr(deploy, "best_products", partial(best_products, seconds=0.0, sizes=(16,)))
    file, bundle = tmp_path / "facts.json", tmp_path / "bundle"
    shutil.copytree(graphs / "bundle", bundle, ignore=shutil.ignore_patterns("model.fp16.onnx"))
    words = ["deploy", str(bundle), "--threads", "1", "--seconds", "0", "--profile", "--json", str(file)]
    assert main(words) == 0
    out, facts = capsys.readouterr().out, json.loads(file.read_text())
    forms = ["published", "lean", "fp32", "int8"]
    assert [(one["bodies"], one["variant"]) for one in facts["lines"]] == [(n, form) for n in (1, 2) for form in forms]
    for one in facts["lines"]:
        assert one["roof"]["precision"] == ("int8" if one["variant"] == "int8" else "fp32")
        assert one["share"] == pytest.approx(2 * one["products"] / one["seconds"] / one["roof"]["rate"])
    assert "What the int8 graph spends its time on, one body, one thread. Time by numbers: " in out
    assert "fp32 100.00% of" in out and {one["chosen"] for one in facts["throughput"]} == {1}
    assert facts["operators"].keys() == {"fp32", "int8"} and "\n| QLinearConv | int8 | " in out
