"""A recipe without a search: the file is the network, its scores come from the file, and training can be continued."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnxruntime
import pytest
import torch

from slimline.errors import SlimlineError
from slimline.methods.distill import distill as distill_module
from slimline.methods.quantize.static import QuantizeStatic
from slimline.methods.recipe import Recipe
from slimline.network import container
from slimline.report.apply import Applied, apply_recipe
from slimline.task import Task
from slimline.training import private as private_module
from tests.toys import patterns, toy, toy_task, write_job

PRUNE = "- PruneChannels: {keep: 0.5, importance: l1, multiple: 4}\n"
TRAIN = "- Distill: {epochs: 4.0, batch: 32}\n"


@dataclass
class Told:
    """A listener that remembers."""

    lines: list[str] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)

    def stage(self, title: str) -> None:
        self.lines.append(title)

    def note(self, text: str) -> None:
        self.lines.append(text)

    def step(self, done: int, total: int, label: str) -> None:
        self.steps.append((done, total))


def applied(folder: Path, text: str, out: str = "small.slim", task: Task | None = None) -> tuple[Applied, Told]:
    (folder / "recipe.yaml").write_text(text)
    told = Told()
    result = apply_recipe(folder / "recipe.yaml", toy(), folder / out, task or toy_task(), told)
    assert result is not None
    return result, told


def accuracy(answers: np.ndarray, labels: np.ndarray) -> float:  # type: ignore[type-arg]
    return float((answers.argmax(1) == labels).mean())


@pytest.mark.parametrize("out", ["small.slim", "small.onnx"])
def test_the_file_is_what_the_recipe_gives_and_its_score_is_that_of_the_file(out: str, tmp_path: Path) -> None:
    result, told = applied(tmp_path, PRUNE + TRAIN, out)
    task = toy_task().read(("image",)).decided(toy())
    splits = task.splits(0)
    expected = (
        Recipe.from_yaml(PRUNE + TRAIN).apply(toy(), replace(task, validate=splits.search, train=splits.train)).network
    )
    x, labels = splits.certify.inputs["image"], splits.certify.labels
    assert labels is not None
    wanted = expected.run({"image": torch.from_numpy(x)})[0].numpy()
    if out.endswith("onnx"):
        answers = onnxruntime.InferenceSession(result.path).run(None, {"image": x})[0]
    else:
        answers = container.load(result.path).run({"image": torch.from_numpy(x)})[0].numpy()
    np.testing.assert_allclose(answers, wanted, rtol=1e-3, atol=1e-4)
    before, after = result.versions
    assert after.score == pytest.approx(accuracy(wanted, labels), abs=0.01) and result.samples == len(labels)
    assert before.score == pytest.approx(accuracy(toy().run({"image": torch.from_numpy(x)})[0].numpy(), labels))
    assert after.parameters == expected.parameter_count() < before.parameters and after.macs < before.macs
    assert after.size_bytes == result.path.stat().st_size
    assert result.page is not None and "Distill" in result.page.read_text()
    assert told.steps[-1] == (32, 32)


def test_without_data_a_recipe_that_needs_none_is_applied(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(PRUNE)
    result = apply_recipe(tmp_path / "recipe.yaml", toy(), tmp_path / "small.slim", None, Told())
    assert result is not None and result.versions[1].score is None and result.page is None
    assert result.versions[1].macs < result.versions[0].macs


def test_a_job_brings_its_own_data(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(PRUNE)
    result = apply_recipe(tmp_path / "recipe.yaml", write_job(tmp_path), tmp_path / "small.slim", None, Told())
    assert result is not None and result.samples == 300


@pytest.mark.parametrize(
    ("text", "out", "sentence"),
    [
        (PRUNE, "small.pt", r"small.pt cannot be written: give --out a name that ends in .slim or .onnx"),
        ("- Prune", "small.slim", "No method is called 'Prune'"),
        ("[", "small.slim", "The recipe is not YAML"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(text: str, out: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        applied(tmp_path, text, out)
    assert not (tmp_path / out).exists()


def test_a_recipe_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=r"nowhere.yaml cannot be read \(No such file or directory\)"):
        apply_recipe(tmp_path / "nowhere.yaml", toy(), tmp_path / "small.slim", None, Told())


def test_an_old_file_stays_when_the_new_one_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "small.slim").write_bytes(b"old")
    labels = {"image": patterns(60, seed=0)[0]}
    with pytest.raises(SlimlineError, match="needs float weights"):
        applied(tmp_path, "- QuantizeStatic\n" + PRUNE, task=Task(validate=labels))
    assert (tmp_path / "small.slim").read_bytes() == b"old"


def test_what_was_learnt_by_heart_is_not_what_is_scored(tmp_path: Path) -> None:
    """Labels drawn at random cannot be learnt, but those of the samples themselves can be remembered."""
    x, _ = patterns(300, seed=5)
    labels = np.random.default_rng(0).integers(0, 4, 300)
    recipe = """
    - Distill: {epochs: 200.0, batch: 32, optimizer: adamw, learning_rate: 0.01, label_weight: 1.0, judgements: 0}
    """
    result, _ = applied(tmp_path, recipe, task=Task(validate={"image": x, "labels": labels}))
    assert result.samples < 200 and result.outcome.curve is not None
    assert result.outcome.curve.losses[-1] < 0.3 * result.outcome.curve.losses[0]
    after = result.versions[1].score
    assert after is not None and after < 0.25 + 4 * (0.25 * 0.75 / result.samples) ** 0.5


@pytest.mark.parametrize(
    ("recipe", "learns"),
    [
        ("- PruneChannels: {keep: 0.5}", True),
        ("- PruneChannels: {keep: 0.5, importance: l1}", False),
        ("- PruneChannels: {keep: 0.5, importance: l1, reconstruct: 64}", True),
        ("- FoldBatchNorm\n- QuantizeStatic", True),
    ],
)
def test_what_samples_decide_is_scored_on_others(recipe: str, learns: bool, tmp_path: Path) -> None:
    result, _ = applied(tmp_path, recipe)
    task = toy_task().read(("image",))
    assert result.samples == (len(task.splits(0).certify) if learns else len(task.validate))


def test_training_samples_among_those_that_score_are_refused(tmp_path: Path) -> None:
    x, labels = patterns(300, seed=5)
    both = {"image": x, "labels": labels}
    with pytest.raises(SlimlineError, match="300 of the 300 validate samples are also in train"):
        applied(tmp_path, TRAIN, task=Task(validate=both, train=both))


def test_a_training_that_ended_is_not_repeated_after_a_later_failure(tmp_path: Path) -> None:
    with patch.object(QuantizeStatic, "apply", side_effect=SlimlineError("no")), pytest.raises(SlimlineError):
        applied(tmp_path, PRUNE + TRAIN + "- QuantizeStatic\n")
    with patch.object(distill_module, "recover", side_effect=AssertionError("trained before")):
        again, told = applied(tmp_path, PRUNE + TRAIN + "- QuantizeStatic\n")
    assert "Distill(epochs=4.0, batch=32) ended before" in "".join(told.lines)
    (tmp_path / "whole").mkdir()
    whole, _ = applied(tmp_path / "whole", PRUNE + TRAIN + "- QuantizeStatic\n")
    assert again.outcome.network.digest() == whole.outcome.network.digest()
    assert again.outcome.curve is not None and whole.outcome.curve is not None
    assert again.outcome.curve.losses == whole.outcome.curve.losses
    assert not [*tmp_path.rglob("finished-*")]


def test_where_the_file_cannot_be_written_nothing_is_trained(tmp_path: Path) -> None:
    (tmp_path / "small.slim").mkdir()
    (tmp_path / "file").write_text("")
    with patch.object(distill_module, "recover", side_effect=AssertionError("trained")):
        with pytest.raises(SlimlineError, match=r"small.slim is a folder: give --out the name of a file"):
            applied(tmp_path, TRAIN)
        with pytest.raises(SlimlineError, match=r"The output folder .*file cannot be written"):
            applied(tmp_path, TRAIN, "file/small.slim")


def test_synthetic_samples_are_called_so_and_counted(tmp_path: Path) -> None:
    task = replace(toy_task(labels=False), train="synthetic")
    made = {"image": torch.randn(24, 1, 8, 8)}
    with patch.object(private_module, "synthesize", return_value=made):
        result, _ = applied(tmp_path, TRAIN, task=task)
    assert result.page is not None
    assert "training 1, synthetic samples" in result.page.read_text() and "48" in result.page.read_text()
