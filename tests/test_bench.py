import json
import sys

import bench
import image_bench
import pytest
import quick_cost
import torch
from plain_loop import plain_loop
from torch import nn
from torch.nn.functional import cross_entropy

from lsr_core import objective
from lsr_core.execute import execute
from lsr_core.models import ImageNetwork
from lsr_core.run import Run
from lsr_core.schedule import Schedule
from study import build

LOSSES = [f"{kind}/{method}" for method in ("lsr", "lsrkd", "lsrkd-tc") for kind in ("loss", "loss-memory")]


@pytest.mark.slow
def test_a_row_compares_two_things_in_one_run(monkeypatch, tmp_path):
    for network in (bench.Perceptron, bench.Convnet):
        monkeypatch.setattr(network, "stack_size", 2)
    monkeypatch.setattr(bench, "ROUNDS", 1)
    monkeypatch.setattr(bench, "LOSS_ROUNDS", 1)
    monkeypatch.setattr(sys, "argv", ["bench.py", "--json", str(tmp_path / "bench.json")])
    elsewhere = {"name": "stack/perceptron", "device": "another"}
    (tmp_path / "bench.json").write_text(json.dumps([elsewhere]))
    bench.main()
    other, *table = json.loads((tmp_path / "bench.json").read_text())
    assert other == elsewhere
    names = [row["name"] for row in table]
    assert names[:3] == ["stack/perceptron", "stack/convnet", "evaluation/digits-100"]
    assert names[5:] == LOSSES
    for row in table:
        assert row.keys() == {"name", "ours", "other", "unit", "ratio", "device"}
        assert row["ratio"] == pytest.approx(row["other"] / row["ours"])


@pytest.mark.slow
def test_images_are_benchmarked_where_they_are(monkeypatch, image_file):
    assert image_bench.rows() == []
    tiny = ImageNetwork("resnet8", width=4)
    monkeypatch.setattr(image_bench, "DATA", str(image_file))
    monkeypatch.setattr(image_bench, "EXAMPLES", 64)
    monkeypatch.setattr(image_bench, "BATCH", 32)
    monkeypatch.setattr(image_bench, "EVALUATED", 100)
    monkeypatch.setattr(image_bench, "ROUNDS", 1)
    monkeypatch.setattr(image_bench, "PEAK_SIDE", 128)
    monkeypatch.setattr(image_bench, "TRAINED", (tiny,))
    monkeypatch.setattr(image_bench, "STUDENT", tiny)
    monkeypatch.setattr(image_bench, "TEACHERS", {"equal": tiny})
    monkeypatch.setattr(nn.Module, "compile", lambda _: None)  # which takes a minute, whatever the network
    table = {row["name"]: row for row in image_bench.rows()}
    trained = ["trainer/resnet8", "peak/resnet8", "compiled/resnet8", "evaluation/resnet8-5000"]
    assert list(table) == [*trained, "shared-teacher/equal", "teacher-forward/equal"]
    assert table["trainer/resnet8"]["ratio"] == pytest.approx(
        table["trainer/resnet8"]["ours"] / table["trainer/resnet8"]["other"]
    )
    assert all(row["ratio"] > 0 for row in table.values())


@pytest.mark.parametrize("method", ["lsr", "lsrkd", "lsrkd-tc"])
def test_a_loss_needs_no_more_memory_than_torchs(method, generator):
    logits, labels = torch.randn(1024, 1000, generator=generator), torch.randint(1000, (1024,), generator=generator)
    ours = bench.peak_memory(lambda z: objective(method)(z, labels).total, logits)
    torchs = bench.peak_memory(lambda z: cross_entropy(z, labels, label_smoothing=0.1), logits)
    assert ours <= 1.2 * torchs


@pytest.mark.usefixtures("own_store")
def test_the_forecast_finds_what_the_runs_and_pages_cost(monkeypatch, tmp_path):
    records = execute([Run("digits", 50, objective("lsr"), Schedule(0.1, epochs=1), seed) for seed in range(2)])
    (tmp_path / ".executed").mkdir()
    for name in build.names():
        done = build.Outcome(name, "done", 20.0, "now")
        (tmp_path / ".executed" / f"{name}.json").write_text(json.dumps(vars(done)))
    probe = sum(record.seconds for record in records) / 3
    monkeypatch.setattr(build, "probe", lambda: probe)
    cost = quick_cost.cost(tmp_path)
    assert cost == {"runs": 2, "training": 3, "pages": round(20 * len(build.names()) / probe)}
    assert cost.keys() == json.loads(build.COST.read_text()).keys()
    monkeypatch.setattr(build, "COST", tmp_path / "quick.json")
    build.COST.write_text(json.dumps(cost))
    assert build.forecast().startswith("the runs are there; ")


def test_the_plain_loop_refuses_what_it_does_not_know():
    with pytest.raises(TypeError, match="cross-entropy and label smoothing only"):
        plain_loop(Run("digits", 50, objective("lsrkd"), Schedule(0.1, epochs=1), 0))
