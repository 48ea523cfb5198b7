"""The table says what narrowing a group costs and what it saves, with latencies that are known beforehand."""

from pathlib import Path
from unittest.mock import patch

import pytest

from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.search import bench as bench_module
from slimline.search.latency_model import LatencyModel
from slimline.search.study import Trial
from slimline.search.table import SensitivityTable
from tests.search.stand_ins import from_macs, planted_race, toy_bench
from tests.toys import toy

QUANTIZE = QuantizeStatic(ops=("aten.conv2d", "aten.linear"))


def filled(folder: Path, resume: bool = False) -> tuple[SensitivityTable, Trial]:
    bench = toy_bench(folder, resume=resume)
    splits = bench.task.splits(0)
    table = SensitivityTable(bench, toy(), bench.training_task, splits.calibrate, multiple=4)
    with patch.object(bench_module, "race", planted_race(from_macs)):
        int8 = bench.trial("int8", Recipe([FoldBatchNorm(), QUANTIZE]), ("torch", ""), scored=False)
        bench.time([int8])
        table.measure_damage()
        table.time_groups(int8)
    return table, int8


def test_every_group_has_a_row_with_its_damage_and_its_milliseconds(tmp_path: Path) -> None:
    table, _ = filled(tmp_path)
    assert {r.group: (r.width, r.layers) for r in table.rows} == {
        "stem": (16, ["stem", "inner", "outer", "head"]), "inner": (24, ["inner", "outer"]),
    }  # fmt: skip
    for row in table.rows:
        damages = [o.damage for o in row.options]
        assert damages[0] == 0 and min(damages[1:]) > 0
        half = {row.group: row.width // 2}
        saved = 4 * 1e-6 * 0.5 * (table.costs.macs({}) - table.costs.macs(half)) / (row.width / 2)
        assert row.ms_per_channel == pytest.approx(saved, rel=0.05)


def test_milliseconds_of_other_widths_are_predicted(tmp_path: Path) -> None:
    table, int8 = filled(tmp_path)
    assert isinstance(table.predict_ms, LatencyModel)
    assert table.predict_ms(table.whole) == pytest.approx(int8.latency_ms, rel=0.02)
    for widths in ({"stem": 16, "inner": 4}, {"stem": 4, "inner": 24}, {"stem": 12, "inner": 12}):
        known = 4 * (0.01 + 1e-6 * 0.5 * table.costs.macs(widths))
        assert table.predict_ms(widths) == pytest.approx(known, rel=0.05)


def test_before_anything_is_timed_macs_stand_for_time(tmp_path: Path) -> None:
    bench = toy_bench(tmp_path)
    table = SensitivityTable(bench, toy(), bench.training_task, bench.task.splits(0).calibrate, multiple=4)
    assert table.predict_ms({"stem": 8}) == table.costs.macs({"stem": 8})


def test_probes_are_never_candidates(tmp_path: Path) -> None:
    table, _ = filled(tmp_path)
    probes = [t for t in table.bench.study.trials() if t.stage == "probe"]
    assert len(probes) >= 3
    assert all(t.status == "dropped" and t.why and t.score is None and t.latency_ms is not None for t in probes)


def test_a_resumed_table_is_the_same_and_prunes_nothing(tmp_path: Path) -> None:
    first, _ = filled(tmp_path)
    with patch("slimline.search.table.options", side_effect=AssertionError("done before")):
        again, _ = filled(tmp_path, resume=True)
    assert again.rows == first.rows
    assert again.predict_ms({"stem": 4}) == first.predict_ms({"stem": 4})
    assert len(again.bench.study.trials()) == len(first.bench.study.trials())
