"""The front is what nothing else beats; every number of the certificate is that of the file it names."""

from pathlib import Path

import numpy as np
import pytest

from slimline.methods.factorize.svd import FactorizeSVD
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.methods.share.codebook import ShareWeights
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network import container
from slimline.network.cost import layers, macs, weight_count
from slimline.runtimes.runtime import Artifact
from slimline.search import evidence
from slimline.search.bundle import sha256
from slimline.search.evidence import _beats, number, study_row
from slimline.search.study import Trial
from tests.network.test_cost_model import Twice
from tests.runtimes.networks import traced
from tests.search.stand_ins import from_macs, pretending
from tests.search.test_optimize import search, slower, trials_of
from tests.toys import finished_run, toy, toy_task


def trial(number: int, ms: float, score: float, size: int) -> Trial:
    return Trial(
        f"t{number:02d}", "free", "torch", "", "fp32", [], "", "", size, 1, 1, score=score, latency_ms=ms, drop=0.0
    )


def test_beating_against_every_pair_of_a_grid() -> None:
    """No worse on all three and better on one, spelled out with numpy for all pairs of 27 trials."""
    grid = [trial(i, *values) for i, values in enumerate(np.ndindex(3, 3, 3))]
    for a in grid:
        for b in grid:
            gains = np.array([(b.latency_ms or 0) - (a.latency_ms or 0), (a.score or 0) - (b.score or 0)])
            gains = np.append(gains, b.size_bytes - a.size_bytes)
            assert _beats(a, b) == bool((gains >= 0).all() and (gains > 0).any())


def test_nothing_on_the_front_is_beaten_and_all_that_is_not_beaten_is_there(tmp_path: Path) -> None:
    with pretending(slower(folded=0.8)):
        result = search(tmp_path)
    rows = [r for r in result.certificate["study"] if r["stage"] != "probe"]
    points = {r["trial"]: (r["latency_ms"], -r["score"], r["size_bytes"]) for r in rows}

    def beaten(p: tuple[float, ...]) -> bool:
        return any(q != p and all(x <= y for x, y in zip(q, p, strict=True)) for q in points.values())

    assert {e["trial"] for e in result.certificate["front"]} == {t for t, p in points.items() if not beaten(p)}
    assert result.certificate["best"]["trial"] in {e["trial"] for e in result.certificate["front"]}


def test_the_front_folder_holds_its_files(tmp_path: Path) -> None:
    folder, result = finished_run()
    files = {p.name.split("-")[0]: p for p in (folder / "front").iterdir()}
    assert sorted(files) == [
        f"t{e['trial']:02d}" for e in sorted(result.certificate["front"], key=lambda e: e["trial"])
    ]
    for entry in result.certificate["front"]:
        assert sha256(files[f"t{entry['trial']:02d}"]) == entry["sha256"]


def test_what_was_not_certified_has_no_verdict_on_the_front(tmp_path: Path) -> None:
    with pretending():
        result = search(tmp_path)
    certified = {r["trial"] for r in result.certificate["study"] if r["status"] in ("best", "finalist", "original")}
    for entry in result.certificate["front"]:
        assert entry["memory_bytes"] is None and entry["speedup_low"] is None
        assert entry["trial"] in certified or entry["drop_upper"] is None


@pytest.mark.parametrize("max_drop", [0.0005, 0.08])
def test_speeds_on_the_front_compare_times_of_the_same_races(tmp_path: Path, max_drop: float) -> None:
    """The best as the last race has it; the others by the times of the search, those of the originals included."""
    with pretending():
        result = search(tmp_path, max_drop=max_drop)
    rows = {r["trial"]: r for r in result.certificate["study"]}
    originals = [r["latency_ms"] for r in rows.values() if r["stage"] == "original"]
    best, others = result.certificate["best"], []
    for entry in result.certificate["front"]:
        if entry["trial"] == best["trial"]:
            assert entry["speedup"] == best["speedup"]
            assert entry["speedup_vs_best_original"] == best["speedup_vs_best_original"]
        else:
            others.append(entry["trial"])
            ms = rows[entry["trial"]]["latency_ms"]
            assert entry["speedup_vs_best_original"] == pytest.approx(min(originals) / ms)
            assert entry["speedup"] == pytest.approx(max(originals) / ms)  # of torch
    assert others == ([4] if max_drop < 0.01 else [])  # integers, which are the best where they may lose that much


def test_numbers_are_those_of_the_files(tmp_path: Path) -> None:
    with pretending():
        result = search(tmp_path)
        best, original = result.certificate["best"], result.certificate["original"]
        run = tmp_path / "run"
        for entry in [best, *result.certificate["front"]]:
            artifact = Artifact(run / entry["artifact"], entry["runtime"])
            network = container.load(artifact.path)
            assert entry["size_bytes"] == artifact.size_bytes and entry["sha256"] == sha256(artifact.path)
            assert entry["macs"] == macs(network) and entry["parameters"] == weight_count(network)
            assert entry["latency_ms"] == pytest.approx(from_macs(artifact), rel=0.01)
        assert original["macs"] == macs(toy()) and original["parameters"] == toy().parameter_count()
    assert best["size_ratio"] == original["size_bytes"] / best["size_bytes"]
    assert best["speedup"] == pytest.approx(original["latency_ms"]["torch"] / best["latency_ms"], rel=0.01)
    fastest = min(original["latency_ms"].values())
    assert best["speedup_vs_best_original"] == pytest.approx(fastest / best["latency_ms"], rel=0.01)
    assert (
        result.certificate["noise"]["aa_ratio_low"] <= 1.001 and result.certificate["noise"]["aa_ratio_high"] >= 0.999
    )


def test_layers_before_and_after_add_up(tmp_path: Path) -> None:
    with pretending():
        result = search(tmp_path)
        small = container.load(tmp_path / "run" / result.best.network)
    rows = result.certificate["layers"]
    assert [r["name"] for r in rows] == [x.name for x in layers(toy())]
    assert sum(r["macs_before"] for r in rows) == macs(toy())
    assert sum(r["macs_after"] for r in rows) == macs(small)
    assert sum(r["bytes_after"] for r in rows) == sum(x.bytes for x in layers(small))
    assert {r["note"] for r in rows} == {"int8"}  # the best is quantised, every layer of it


def test_a_layer_that_was_split_is_counted_together() -> None:
    before, after = toy(), FactorizeSVD(rank=4, layers=("outer",)).apply(toy()).network
    rows = {row["name"]: row for row in evidence.layer_changes(before, after)}
    outer, inner = rows["outer"], rows["inner"]
    assert outer["macs_after"] == 4 * (24 + 16) * 16 and outer["bytes_after"] == 4 * 4 * (24 + 16)
    assert outer["shape_after"] is None and outer["note"] == "2 layers in its place"
    assert inner["macs_after"] == inner["macs_before"] and inner["note"] == "float32"


def test_a_codebook_takes_its_values_and_its_numbers() -> None:
    after = ShareWeights(clusters=256, layers=("inner",)).apply(toy()).network
    rows = {row["name"]: row for row in evidence.layer_changes(toy(), after)}
    assert rows["inner"]["bytes_after"] == 256 * 4 + 24 * 16 * 9 and rows["inner"]["note"] == "computed"


def test_each_call_of_a_layer_has_its_own_row() -> None:
    network = traced(Twice())
    rows = evidence.layer_changes(network, network)
    assert [row["macs_before"] for row in rows] == [row["macs_after"] for row in rows] and len(rows) == 4


def test_the_study_lists_every_trial_and_why_it_was_dropped(tmp_path: Path) -> None:
    with pretending():
        result = search(tmp_path)
    trials = trials_of(tmp_path / "run")
    assert result.certificate["study"] == [study_row(t) for t in trials]
    assert [d[0] for d in result.certificate["discarded"]] == [number(t) for t in trials if t.status == "dropped"]
    assert all(why for _, why in result.certificate["discarded"])
    assert [t.status for t in trials].count("best") == 1


def test_the_card_and_the_recipe_are_those_of_the_best() -> None:
    folder, result = finished_run()
    card = (folder / "best" / "CARD.md").read_text()
    assert result.certificate["sentence"] in card
    assert all(f"- `{line}`" in card for line in result.certificate["best"]["recipe"])
    assert (
        (folder / "recipe.yaml").read_text() == (folder / "best" / "recipe.yaml").read_text() == result.best.recipe_yaml
    )


def test_the_format_of_every_layer_is_told() -> None:
    """As it is stored; a codebook and its numbers make a weight that is not stored."""
    network = toy()
    formats = {x.name: evidence._format(network, x) for x in layers(network)}
    assert set(formats.values()) == {"float32"}
    quantised = Recipe([FoldBatchNorm(), QuantizeStatic()]).apply(network, toy_task()).network
    assert {evidence._format(quantised, x) for x in layers(quantised)} == {"int8"}
    shared = ShareWeights(clusters=16, smallest=64).apply(network).network
    assert "computed" in {evidence._format(shared, x) for x in layers(shared)}
