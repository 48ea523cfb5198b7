"""A trial is built, exported and scored once; its file is what is timed."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.recipe import Recipe
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network import container
from slimline.network.cost import macs
from slimline.network.network import Network
from slimline.runtimes.registry import open_artifact
from slimline.runtimes.runtime import Array, Artifact
from slimline.search import bench as bench_module
from slimline.search.bench import Bench, require_writable
from tests.search.stand_ins import from_macs, outputs_here, planted_race, pretending, toy_bench
from tests.toys import toy, toy_task

HALF = Recipe([PruneChannels(keep=0.5, importance="l1"), FoldBatchNorm()])


def test_a_trial_says_what_its_file_is(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        original = bench.trial("original", Recipe(), ("torch", ""))
        trial = bench.trial("free", HALF, ("onnxruntime", ""))
        network = HALF.apply(toy(), bench.training_task).network
        outputs = open_artifact(bench.artifact(trial), 1).run(bench.search.inputs)[0]
        assert np.array_equal(outputs, network.run(bench.search.tensors())[0].numpy())
    path = tmp_path / trial.artifact
    assert trial.size_bytes == path.stat().st_size and trial.macs == macs(network)
    assert trial.parameters == network.parameter_count() and trial.recipe == HALF.lines()
    assert (trial.id, trial.precision, trial.place) == ("t02", "fp32", ("onnxruntime", ""))
    correct = outputs.argmax(1) == bench.search.labels
    assert trial.score == pytest.approx(correct.mean())
    assert original.drop == 0 and original.score is not None
    assert trial.drop == pytest.approx(original.score - correct.mean())
    assert trial.drop_sd == pytest.approx((bench.reference_scores - correct).std())
    assert torch.equal(bench.load(trial.network).run(bench.search.tensors())[0], network.run(bench.search.tensors())[0])


def test_a_finished_trial_is_not_built_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def build() -> Network:
        calls.append(1)
        return toy()

    with pretending():
        bench = toy_bench(tmp_path)
        first = bench.trial("free", HALF, ("torch", ""), build)
        again = bench.trial("free", HALF, ("torch", ""), build)
        elsewhere = bench.trial("free", HALF, ("onnxruntime", ""), build)
        bench.study.close()
        resumed = toy_bench(tmp_path, resume=True).trial("free", HALF, ("torch", ""), build)
    assert first == again == resumed and elsewhere.id == "t02" and len(calls) == 2


def test_a_trial_lost_between_its_step_and_its_row_is_found_again(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        trial = bench.trial("free", HALF, ("torch", ""))
        bench.study.connection.execute("DELETE FROM trials")
        again = bench.trial("free", HALF, ("torch", ""))
    assert again == trial and bench.study.trials() == [trial]


def test_runtimes_that_read_the_same_format_share_a_file(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        one, other = (bench.trial("free", HALF, ("onnxruntime", variant)) for variant in ("", "bf16"))
        torchs = bench.trial("free", HALF, ("torch", ""))
    assert one.artifact == other.artifact != torchs.artifact and one.network == torchs.network
    assert other.precision == "bf16" and other.label == "onnxruntime[bf16]"


def test_what_an_interrupted_export_left_is_replaced(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        first = bench.trial("free", HALF, ("torch", ""))
        folder = (tmp_path / first.artifact).parent
        folder.rename(folder.with_name(folder.name + ".partial"))
        (folder.with_name(folder.name + ".partial") / "half").touch()
        bench.study.connection.executescript("DELETE FROM steps; DELETE FROM trials;")
        assert bench.trial("free", HALF, ("torch", "")).artifact == first.artifact
    assert [p.name for p in folder.iterdir()] == [Path(first.artifact).name]
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_the_same_network_is_kept_once(tmp_path: Path) -> None:
    bench = toy_bench(tmp_path)
    assert bench.keep(toy()) == bench.keep(toy())
    assert len(list((tmp_path / "networks").iterdir())) == 1


def test_latencies_of_different_races_are_tied_by_the_anchor(tmp_path: Path) -> None:
    """The second race is on a machine that has become three times slower; the milliseconds stay comparable."""
    with pretending():
        bench = toy_bench(tmp_path)
        original = bench.trial("original", Recipe(), ("torch", ""))
        bench.time([original])
        bench.anchor = original
        half = bench.trial("free", HALF, ("torch", ""))
        with patch.object(bench_module, "race", planted_race(lambda a: 3 * from_macs(a))):
            bench.time([half])
        assert original.latency_ms == pytest.approx(from_macs(bench.artifact(original)), rel=0.01)
        assert half.latency_ms == pytest.approx(from_macs(bench.artifact(half)), rel=0.01)
        with patch.object(bench_module, "race", side_effect=AssertionError("raced before")):
            again = dataclasses.replace(half, latency_ms=None)
            bench.time([again])
    assert again.latency_ms == half.latency_ms
    assert {t.id: t.latency_ms for t in bench.study.trials()} == {
        "t01": original.latency_ms, "t02": half.latency_ms,
    }  # fmt: skip


def test_probes_are_not_scored(tmp_path: Path) -> None:
    with pretending(), patch.object(bench_module, "artifact_outputs", side_effect=AssertionError("not asked for")):
        trial = toy_bench(tmp_path).trial("probe", HALF, ("torch", ""), scored=False)
    assert trial.score is None and trial.drop is None and trial.latency_ms is None


def test_without_labels_the_original_is_the_reference(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path, toy_task(labels=False))
        original = bench.trial("original", Recipe(), ("torch", ""))
        half = bench.trial("free", HALF, ("torch", ""))
        answers = [outputs_here(bench.artifact(t), bench.search.inputs, 1)[0].argmax(1) for t in (original, half)]
    assert original.score == 1.0
    assert half.score == pytest.approx((answers[0] == answers[1]).mean()) and half.drop == pytest.approx(
        1 - (half.score or 0)
    )


def test_a_resumed_bench_gets_its_reference_back(tmp_path: Path) -> None:
    with pretending():
        first = toy_bench(tmp_path, toy_task(labels=False))
        original = first.trial("original", Recipe(), ("torch", ""))
        first.study.close()
        bench: Bench = toy_bench(tmp_path, toy_task(labels=False), resume=True)
        replayed = bench.trial("original", Recipe(), ("torch", ""))
        assert not bench.reference
        bench.restore_reference(replayed)
    assert replayed == original
    assert np.array_equal(bench.reference[0], first.reference[0]) and bench.reference_scores is not None


def test_a_dropped_trial_keeps_its_reason(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        bench.drop_trial(bench.trial("free", HALF, ("torch", "")), "too slow")
    assert [(t.status, t.why) for t in bench.study.trials()] == [("dropped", "too slow")]


@pytest.mark.parametrize("folder", ["file/below", "/proc/nope", "/dev/null/x"])
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SlimlineError, match="The output folder .* cannot be written .*: choose another --out"):
        require_writable(tmp_path / folder)


def test_a_folder_that_can_be_written_is_made_and_left_empty(tmp_path: Path) -> None:
    require_writable(tmp_path / "a" / "b")
    require_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_the_given_file_is_the_original_where_the_runtime_loads_such_files(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        exported = bench.trial("free", HALF, ("onnxruntime", ""))
        bench.given = Path(shutil.copy(tmp_path / exported.artifact, tmp_path / "mine.pretend"))
        original = bench.trial("original", Recipe(), ("onnxruntime", ""))
        in_torch = bench.trial("original", Recipe(), ("torch", ""))
    assert original.artifact == "artifacts/given/mine.pretend"
    assert "given" not in exported.artifact and "given" not in in_torch.artifact


def test_a_given_file_that_the_runtime_cannot_run_is_exported_from_the_network(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        bench.given = tmp_path / "mine.pretend"
        bench.given.write_bytes(b"damaged")
        assert "given" not in bench.trial("original", Recipe(), ("onnxruntime", "")).artifact


# --- what a runtime refuses -------------------------------------------------------------------------------------------


def refusing(kind: str, word: str, batch: int | None = None) -> Callable[..., list[Array]]:
    """`outputs_here`, but files whose network is ``kind`` (by MACs) are refused, in one batch or in all."""

    def run(artifact: Artifact, inputs: Mapping[str, Array], threads: int, size: int = 64) -> list[Array]:
        whole = macs(container.load(artifact.path)) == macs(toy())
        if ((kind == "whole") == whole) and batch in (None, size):
            raise SlimlineError(word)
        return outputs_here(artifact, inputs, threads, size)

    return run


def test_a_file_that_the_runtime_refuses_is_dropped_with_its_words(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        bench.trial("original", Recipe(), ("torch", ""))
        with patch.object(bench_module, "artifact_outputs", refusing("half", "index 0 out of range")):
            half = bench.trial("free", HALF, ("onnxruntime", ""))
        bench.time([half])
        bench.drop_trial(half, "lost too much")
        bench.study.close()
        replayed = toy_bench(tmp_path, resume=True).trial("free", HALF, ("onnxruntime", ""))
    assert half == replayed and half.refused
    assert (half.status, half.why, half.drop, half.latency_ms) == ("dropped", "index 0 out of range", None, None)


def test_a_first_file_that_is_refused_ends_the_study(tmp_path: Path) -> None:
    broken = patch.object(bench_module, "artifact_outputs", refusing("whole", "no such operator"))
    with pretending(), broken, pytest.raises(SlimlineError, match="no such operator"):
        toy_bench(tmp_path).trial("original", Recipe(), ("torch", ""))


def test_a_file_that_is_refused_in_the_race_leaves_the_others_timed(tmp_path: Path) -> None:
    """It runs in the batch of the scores and not in that of the race, as happens with a fixed batch."""

    def one_sample(artifact: Artifact) -> float:
        if macs(container.load(artifact.path)) != macs(toy()):
            raise SlimlineError("the race broke")
        return from_macs(artifact)

    with pretending():
        bench = toy_bench(tmp_path)
        original = bench.trial("original", Recipe(), ("torch", ""))
        half = bench.trial("free", HALF, ("onnxruntime", ""))
        with (
            patch.object(bench_module, "race", planted_race(one_sample)),
            patch.object(bench_module, "artifact_outputs", refusing("half", "batch 1 is too few", batch=1)),
        ):
            bench.time([original, half])
    assert original.latency_ms == pytest.approx(from_macs(bench.artifact(original)), rel=0.01)
    assert half.refused and half.latency_ms is None and half.why == "batch 1 is too few" and half.drop is not None
    assert bench.study.trials() == [original, half]


def test_a_race_that_fails_for_no_file_in_particular_is_not_hidden(tmp_path: Path) -> None:
    with pretending():
        bench = toy_bench(tmp_path)
        original = bench.trial("original", Recipe(), ("torch", ""))
        broken = patch.object(bench_module, "race", side_effect=SlimlineError("the clock is too coarse"))
        with broken, pytest.raises(SlimlineError, match="the clock is too coarse"):
            bench.time([original])
