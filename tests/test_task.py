"""Every form of data reads to the same arrays, every bad one gives its sentence, and splits never overlap."""

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.scores import SCORES, accuracy, cosine
from slimline.task import DECIDE_SAMPLES, FEWEST_PER_SPLIT, FileArrays, Samples, Splits, Task, read_samples
from tests.network.networks import network_of

COUNT = 70


def arrays(count: int = COUNT, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, 3, 4)).astype(np.float32), generator.integers(0, 5, count)


X, Y = arrays()
TX, TY = torch.from_numpy(X), torch.from_numpy(Y)
PIECES = [slice(0, 32), slice(32, 64), slice(64, COUNT)]

LABELLED: dict[str, Callable[[], Any]] = {
    "a tuple of arrays": lambda: (X, Y),
    "a tuple of tensors": lambda: (TX, TY),
    "a tuple of lists": lambda: (X.tolist(), Y.tolist()),
    "a dict of arrays": lambda: {"x": X, "labels": Y},
    "a dict of tensors with more in it": lambda: {"id": np.arange(COUNT), "labels": TY, "x": TX},
    "a data loader": lambda: DataLoader(TensorDataset(TX, TY), batch_size=32),
    "a list of tuples": lambda: [(X[p], Y[p]) for p in PIECES],
    "a list of lists": lambda: [[TX[p], TY[p]] for p in PIECES],
    "a list of dicts": lambda: [{"x": X[p], "labels": TY[p]} for p in PIECES],
    "samples": lambda: Samples({"x": X}, Y),
    "tensors that need gradients": lambda: (TX.clone().requires_grad_(), TY),
}
UNLABELLED: dict[str, Callable[[], Any]] = {
    "a dict": lambda: {"x": X},
    "a list of tensors": lambda: [TX[p] for p in PIECES],
    "a list of arrays": lambda: [X[p] for p in PIECES],
    "a list of tuples of one": lambda: [(X[p],) for p in PIECES],
    "a data loader": lambda: DataLoader(TensorDataset(TX), batch_size=32),
}


@pytest.mark.parametrize("form", LABELLED)
def test_every_form_with_labels_reads_to_the_same_arrays(form: str) -> None:
    task = Task(validate=LABELLED[form](), train=LABELLED[form]()).read(["x"])
    for samples in (task.validate, task.train):
        np.testing.assert_allclose(samples.inputs["x"], X, rtol=0, atol=0)
        np.testing.assert_array_equal(samples.labels, Y)
        assert list(samples.inputs) == ["x"] and len(samples) == COUNT
    assert task.score == "accuracy"
    assert task.read(["x"]).validate is task.validate  # reading again changes nothing


@pytest.mark.parametrize("form", UNLABELLED)
def test_every_form_without_labels_reads_to_the_same_array(form: str) -> None:
    task = Task(validate=UNLABELLED[form]()).read(["x"])
    np.testing.assert_array_equal(task.validate.inputs["x"], X)
    assert task.validate.labels is None and task.train is None and task.score == "agreement"


@pytest.mark.parametrize(
    "source",
    [
        {"a": X, "b": 2 * X, "labels": Y},
        [(X[p], 2 * X[p], Y[p]) for p in PIECES],
        [{"b": 2 * X[p], "a": X[p], "labels": Y[p]} for p in PIECES],
        DataLoader(TensorDataset(TX, 2 * TX, TY), batch_size=9),
    ],
    ids=["dict", "tuples", "dicts", "loader"],
)
def test_several_inputs(source: Any) -> None:
    samples = read_samples(source, ["a", "b"], "validate")
    assert list(samples.inputs) == ["a", "b"]
    np.testing.assert_array_equal(samples.inputs["a"], X)
    np.testing.assert_array_equal(samples.inputs["b"], 2 * X)
    np.testing.assert_array_equal(samples.labels, Y)


def with_(array: np.ndarray, value: float, place: int) -> np.ndarray:
    changed = array.copy()
    changed[place, 1, 2] = value
    return changed


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "NaN": (lambda: (with_(X, np.nan, 13), Y), r"'x' has NaN or infinity in sample 13: remove or repair it"),
    "infinity": (lambda: {"x": with_(X, np.inf, 4)}, r"'x' has NaN or infinity in sample 4"),
    "NaN in labels": (lambda: (X, np.where(np.arange(COUNT) == 7, np.nan, 1.0)), "'labels' has NaN .* in sample 7"),
    "an empty loader": (lambda: [], "validate loader is empty: it has to yield at least one batch"),
    "an empty data loader": (lambda: DataLoader(TensorDataset(TX[:0], TY[:0])), "validate loader is empty"),
    "no samples": (lambda: (X[:0], Y[:0]), "validate data is empty: give at least one sample"),
    "fewer labels": (lambda: (X, Y[:-1]), "'labels' has 69 samples and another array 70"),
    "unequal inputs": (lambda: {"x": X, "labels": Y[:5]}, "'labels' has 5 samples and another array 70"),
    "labels in some batches": (lambda: [(X, Y), X], "'labels' has 70 samples and another array 140"),
    "objects": (lambda: (X, np.array([{}] * COUNT)), "'labels' holds Python objects: give an array of numbers"),
    "ragged lists": (lambda: ([[1.0, 2.0], [3.0]], [0, 1]), "'x' is not an array: .*inhomogeneous"),
    "ragged batches": (lambda: [X[:9], X[9:, :2]], r"'x' have the shapes \(2, 4\), \(3, 4\): make them equal"),
    "a list instead of a tuple": (lambda: [X, Y], "have to be a tuple"),
    "single samples": (lambda: [(X[0], 3), (X[1], 4)], "'labels' is a single int: give batches"),
    "a single number": (lambda: (X, 3), "'labels' is a single int"),
    "no labels in a tuple": (lambda: (X, None), "'labels' is a single NoneType"),
    "another name": (lambda: {"image": X}, r"no array for the input 'x'; it has \['image'\]"),
    "another name in a batch": (lambda: [{"image": X}], "no array for the input 'x'"),
    "a number": (lambda: 3, r"Task\(validate=\.\.\.\) is a int: give a loader, \(inputs, labels\) or a dict"),
    "None": (lambda: None, r"Task\(validate=\.\.\.\) is a NoneType"),
    "words": (lambda: ["one", "two"], "loader yields a str that is neither"),
    "three values": (lambda: [(X, Y, Y)], "loader yields a tuple that is neither"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_data_gives_its_sentence(case: str) -> None:
    make, sentence = BAD[case]
    with pytest.raises(SlimlineError, match=sentence) as caught:
        Task(validate=make()).read(["x"])
    assert "\n" not in str(caught.value)


def test_bad_training_data_says_that_it_is_the_training_data() -> None:
    with pytest.raises(SlimlineError, match=r"In the train data 'x' has NaN or infinity in sample 13"):
        Task(validate=(X, Y), train=(with_(X, np.nan, 13), Y)).read(["x"])


@pytest.mark.parametrize("source", [(X, Y), [X], [TX]], ids=["tuple", "array", "tensor"])
def test_one_array_for_several_inputs_is_refused(source: Any) -> None:
    with pytest.raises(SlimlineError, match="has the inputs a, b, but the validate data has one array without a name"):
        Task(validate=source).read(["a", "b"])


@pytest.mark.parametrize("what", ["validate", "train"])
def test_what_can_be_read_only_once_is_refused(what: str) -> None:
    with pytest.raises(SlimlineError, match=rf"Task\({what}=\.\.\.\) is a generator, which can be read only once"):
        batches = (batch for batch in [(X, Y)])
        Task(validate=batches) if what == "validate" else Task(validate=(X, Y), train=batches)


def test_settings_are_checked_when_the_task_is_made() -> None:
    with pytest.raises(
        SlimlineError, match=r"score='acuracy'\) is unknown: use accuracy, agreement, cosine, relative or a function"
    ):
        Task(validate=(X, Y), score="acuracy")
    with pytest.raises(SlimlineError, match=r"Task\(augment='audio'\) is unknown"):
        Task(validate=(X, Y), augment="audio")
    with pytest.raises(SlimlineError, match="needs labels in validate: give them, or use score='agreement'"):
        Task(validate={"x": X}, score="accuracy").read(["x"])


@pytest.mark.parametrize("given", ["shift,rotate", ("rotate", "shift"), ["shift", "rotate"]])
def test_augment_becomes_the_names_of_what_changes(given: str | list[str]) -> None:
    assert Task(validate=(X, Y), augment=given).augment == ("shift", "rotate")
    assert Task(validate=(X, Y), augment=given).read(["x"]).augment == ("shift", "rotate")
    assert not Task(validate=(X, Y)).augment


def contents(samples: Samples) -> set[bytes]:
    return {samples.inputs["x"][i].tobytes() + samples.inputs["x"].dtype.str.encode() for i in range(len(samples))}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [60, 61, 66, 67, 100, 501])
def test_splits_never_overlap_and_lose_nothing(count: int, seed: int) -> None:
    """By the content of the samples, not by their index."""
    x, y = arrays(count, seed=1)
    splits = Task(validate=(x, y)).read(["x"]).splits(seed)
    train, calibrate, search, certify = (
        contents(s) for s in (splits.train, splits.calibrate, splits.search, splits.certify)
    )
    everything = contents(Samples({"x": x}))
    assert len(everything) == count  # all samples differ, so that content stands for identity
    assert not (train & search or train & certify or search & certify)
    assert train | search | certify == everything
    assert calibrate <= train
    assert min(len(calibrate), len(search), len(certify)) >= FEWEST_PER_SPLIT
    labels = {row.tobytes(): int(label) for row, label in zip(x, y, strict=True)}
    for part in (splits.train, splits.calibrate, splits.search, splits.certify):
        assert part.labels is not None
        assert [labels[row.tobytes()] for row in part.inputs["x"]] == part.labels.tolist()


@pytest.mark.parametrize("count", [40, 41, 99, 500])
def test_training_samples_of_their_own_leave_all_of_validate_to_search_and_certify(count: int) -> None:
    x, y = arrays(count, seed=1)
    own, own_labels = arrays(3000, seed=2)
    splits = Task(validate=(x, y), train=(own, own_labels)).read(["x"]).splits(0)
    assert contents(splits.train) == contents(Samples({"x": own}))
    assert contents(splits.calibrate) < contents(splits.train) and len(splits.calibrate) == 1024
    assert contents(splits.search) | contents(splits.certify) == contents(Samples({"x": x}))
    assert not contents(splits.search) & contents(splits.certify)
    assert min(len(splits.search), len(splits.certify)) >= FEWEST_PER_SPLIT


def digests(splits: Splits) -> list[str]:
    return [s.digest() for s in (splits.train, splits.calibrate, splits.search, splits.certify)]


def test_the_same_seed_gives_the_same_splits() -> None:
    task = Task(validate=(X, Y)).read(["x"])
    assert digests(task.splits(3)) == digests(Task(validate=[(TX, TY)]).read(["x"]).splits(3))
    assert not set(digests(task.splits(3))) & set(digests(task.splits(4)))


@pytest.mark.parametrize(("count", "train", "need"), [(59, None, 60), (39, (X, Y), 40), (1, None, 60)])
def test_too_few_samples_are_refused_with_the_number_that_is_needed(count: int, train: Any, need: int) -> None:
    x, y = arrays(count)
    with pytest.raises(SlimlineError, match=rf"has {count} validation samples, too few .* give at least {need}\."):
        Task(validate=(x, y), train=train).read(["x"]).splits(0)


@pytest.mark.parametrize(
    ("logits", "labels", "sentence"),
    [
        (np.zeros((3, 2)), np.array([0, 1, 2]), "has 2 classes but the labels run from 0 to 2"),
        (np.zeros((3, 2)), np.array([0, -1, 1]), "the labels run from -1 to 1"),
        (np.zeros((3, 2)), np.array([0.0, 1.0, 1.0]), r"type float64 are not class numbers"),
        (np.zeros((3, 2)), np.array([[0], [1], [1]]), r"Labels of shape \(3, 1\)"),
        (np.zeros((3, 2)), np.array(["a", "b", "c"]), "are not class numbers"),
        (np.zeros((4, 2)), np.array([0, 1, 1]), r"shape \(4, 2\), which does not match 3 class labels"),
        (np.zeros(3), np.array([0, 1, 1]), r"accuracy needs \(samples, classes\); give Task\(score=your_function\)"),
        (np.zeros((3, 2, 5, 5)), np.array([0, 1, 1]), r"The model's output has shape \(3, 2, 5, 5\)"),
    ],
)
def test_labels_that_do_not_fit_the_outputs(logits: np.ndarray, labels: np.ndarray, sentence: str) -> None:
    task = Task(validate={"x": X[:3], "labels": labels}, score="accuracy").read(["x"])
    with pytest.raises(SlimlineError, match=sentence):
        task.per_sample([logits], task.validate, [logits])


def test_agreement_is_accuracy_on_the_answers_of_the_original() -> None:
    task = Task(validate={"x": X}).read(["x"])
    generator = np.random.default_rng(0)
    ours, original = generator.standard_normal((2, COUNT, 5))
    assert task.per_sample([original], task.validate, [original]).tolist() == [1.0] * COUNT
    expected = accuracy([ours], original.argmax(1))
    assert task.per_sample([ours], task.validate, [original]).tolist() == expected.tolist()
    assert 0 < expected.mean() < 1
    with pytest.raises(SlimlineError, match=r"agreement needs \(samples, classes\)"):
        task.per_sample([np.zeros(COUNT)], task.validate, [np.zeros(COUNT)])


def closeness(outputs: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    return np.asarray(-np.abs(outputs[0] - labels))


def test_a_score_of_your_own() -> None:
    targets = np.linspace(0, 1, COUNT)
    task = Task(validate=(X, targets), score=closeness).read(["x"])
    scores = task.per_sample([targets + 0.25], task.validate, [targets])
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, -0.25)
    assert task.describe_score() == "mean of the user's score function closeness"
    unlabelled = Task(validate={"x": X}, score=closeness).read(["x"])
    np.testing.assert_allclose(unlabelled.per_sample([targets + 0.5], unlabelled.validate, [targets]), -0.5)


@pytest.mark.parametrize(
    ("score", "sentence"),
    [
        (lambda o, y: 0.5, r"returned shape \(\) for 70 samples: return one score per sample"),
        (lambda o, y: np.zeros((COUNT, 2)), r"returned shape \(70, 2\)"),
        (
            lambda o, y: np.where(np.arange(COUNT) == 9, np.nan, 1.0),
            "score of sample 9 is nan: scores have to be finite",
        ),
    ],
)
def test_scores_that_are_none(score: Callable[..., Any], sentence: str) -> None:
    task = Task(validate=(X, Y), score=score).read(["x"])
    with pytest.raises(SlimlineError, match=sentence):
        task.per_sample([X], task.validate, [X])


def test_scores_are_told_in_words() -> None:
    for name in SCORES:
        assert name in Task(validate=(X, Y), score=name).describe_score()


def test_samples_are_taken_and_hashed_by_content() -> None:
    samples = Samples({"x": X}, Y)
    part = samples.take(np.array([5, 2]))
    np.testing.assert_array_equal(part.inputs["x"], X[[5, 2]])
    assert part.labels is not None and part.labels.tolist() == [Y[5], Y[2]]
    assert samples.digest() == Samples({"x": X.copy()}, Y.copy()).digest()
    assert samples.digest() == Samples({"x": np.asfortranarray(X)}, Y).digest()
    others = (
        samples.take(slice(0, -1)),
        Samples({"x": with_(X, 0.125, 3)}, Y),
        Samples({"x": X}),
        Samples({"x": X}, Y + 1),
    )
    assert len({samples.digest(), *(other.digest() for other in others)}) == 5
    tensors = samples.take(slice(None, None, -1)).tensors()
    assert torch.equal(tensors["x"], TX.flip(0))


def test_the_original_travels_with_the_task() -> None:
    network = network_of("plain adds")
    task = Task(validate=(X, Y)).with_original(network)
    assert task.original is network and task.read(["x"]).original is network
    assert "Network" not in repr(task)


def test_data_of_another_name_than_the_input_is_told_by_the_network() -> None:
    network = trace(torch.nn.Flatten(), [TX[:2]])
    assert network.input_names == ("input",)
    with pytest.raises(SlimlineError, match="no array for the input 'input'"):
        Task(validate={"image": X}).read(network.input_names)


def test_errors_in_the_users_own_score_and_loader_are_sentences() -> None:
    def broken_score(outputs: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
        raise KeyError("nothing here")

    class BrokenLoader:
        def __iter__(self) -> Iterator[object]:
            yield np.zeros((4, 2), np.float32), np.zeros(4, np.int64)
            raise OSError("the disk is gone")

    x, y = np.zeros((60, 2), np.float32), np.zeros(60, np.int64)
    task = Task(validate=(x, y), score=broken_score).read(["x"])
    with pytest.raises(SlimlineError, match="The score function failed on outputs of shape .*KeyError"):
        task.per_sample([x], task.validate, [x])
    with pytest.raises(SlimlineError, match="The validate loader failed: OSError: the disk is gone"):
        Task(validate=BrokenLoader()).read(["x"])


# --- decided for a network --------------------------------------------------------------------------------------------


class Head(torch.nn.Module):
    """(N, 3, 4) floats and (N, 2) indices to what ``end`` makes of 20 numbers."""

    def __init__(self, end: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.rows, self.end = torch.nn.Linear(12, 20), torch.nn.Embedding(5, 20), end

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> Any:
        return self.end(self.layer(x.flatten(1)) + self.rows(ids).sum(1))


def head(end: Callable[[torch.Tensor], Any] = torch.tanh) -> Network:
    return trace(Head(end), {"x": TX[:2], "ids": torch.zeros(2, 2, dtype=torch.int64)})


IDS = np.arange(2 * COUNT).reshape(COUNT, 2) % 5


@pytest.mark.parametrize(
    ("end", "score"),
    [(lambda x: x.softmax(1), "agreement"), (torch.tanh, "cosine"), (lambda x: x.mean(1), "relative")],
)
def test_without_labels_the_score_fits_the_output_and_stays(end: Callable[..., Any], score: str) -> None:
    network = head(end)
    task = Task(validate={"x": X, "ids": IDS}).decided(network)
    assert task.score == score and task.output is not None and task.output.name == "output"
    assert task.decided(network) == task == task.read(network.input_names)
    assert "not accuracy" in task.describe_score()
    original = [o.numpy() for o in network.run(task.validate.tensors())]
    assert task.per_sample(original, task.validate, original).tolist() == [1.0] * COUNT


def test_what_the_user_says_counts() -> None:
    data, network = {"x": X, "ids": IDS, "labels": Y}, head(lambda x: (x.softmax(1), x))
    assert Task(validate=data).decided(network).score == "accuracy"
    assert Task(validate=data, score=closeness).decided(network).score is closeness
    task = Task(validate=data, score="cosine").decided(network)
    ours, original = np.random.default_rng(0).standard_normal((2, COUNT, 20))
    assert task.per_sample([ours], task.validate, [original]).tolist() == cosine([ours], original).tolist()
    assert task.describe_score().endswith("not accuracy, of 'output_0', the first of 2 outputs")


def test_the_class_axis_of_the_original_counts() -> None:
    """20 numbers as 2 classes at 10 positions: by their shape alone the 10 would be the classes."""
    network = head(lambda x: x.reshape(-1, 2, 10).softmax(1))
    task = Task(validate={"x": X, "ids": IDS}).decided(network)
    original = network.run(task.validate.tensors())[0].numpy()
    ours = original[:, ::-1].copy()
    ours[:, :, :4] = original[:, :, :4]
    np.testing.assert_allclose(task.per_sample([ours], task.validate, [original]), 0.4)


def test_the_network_looks_at_samples_from_the_first_to_the_last() -> None:
    seen: list[int] = []
    network = head()
    run = network.run

    def watched(inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        seen.extend(inputs["ids"][:, 0].tolist())
        return run(inputs)

    with patch.object(network, "run", watched):
        Task(validate={"x": np.zeros((500, 3, 4), np.float32), "ids": np.repeat(IDS[:5], 100, 0)}).decided(network)
    assert len(seen) == DECIDE_SAMPLES and set(seen) == set(range(5))


def test_only_the_width_of_numbers_is_changed() -> None:
    network = head()
    task = Task(validate={"x": X.astype(np.float64), "ids": IDS.astype(np.uint8)}, train={"x": X, "ids": IDS})
    decided = task.decided(network)
    for samples in (decided.validate, decided.train):
        assert {name: str(x.dtype) for name, x in samples.inputs.items()} == {"x": "float32", "ids": "int64"}
        np.testing.assert_array_equal(samples.inputs["ids"], IDS)
        np.testing.assert_array_equal(samples.inputs["x"], X)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"x": X[:, :2], "ids": IDS}, r"a sample of 'x' has the shape \(2, 4\), but the network takes \(3, 4\)\."),
        ({"x": (X > 0), "ids": IDS}, r"'x' holds bool, but the network takes float32: convert it"),
        ({"x": IDS, "ids": IDS}, r"a sample of 'x' has the shape \(2,\)"),
        ({"x": (255 * X).astype(np.uint8), "ids": IDS}, r"'x' holds uint8, but the network takes float32"),
        ({"x": X, "ids": IDS.astype(np.float32)}, r"'ids' holds float32, but the network takes int64"),
        ({"x": X, "ids": np.full((COUNT, 2), 2**63, np.uint64)}, r"'ids' holds uint64, but the network takes int64"),
        ({"x": X, "ids": IDS + 1}, r"The network cannot run on the validate data: index out of range"),
        ({"x": np.full((COUNT, 3, 4), "a"), "ids": IDS}, r"'x' holds <U1, but the network takes float32"),
    ],
)  # fmt: skip
def test_data_that_the_network_does_not_take(data: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence) as caught:
        Task(validate=data).decided(head())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names", [["x"], ["x", "y"], ["X", "ids"], ["x", "ids", "label"], ["array"], []], ids=lambda names: "+".join(names)
)
def test_the_arrays_of_a_file_are_never_guessed(names: list[str]) -> None:
    arrays = FileArrays(dict.fromkeys(names, X), "some/data.npz")
    held = ", ".join(names) if names else r"\(none\)"
    with pytest.raises(
        SlimlineError, match=rf"some/data\.npz holds the arrays {held}, but the inputs of the network are x, ids: name"
    ):
        Task(validate=arrays).read(["x", "ids"])


def test_the_arrays_of_a_file_read_as_any_others() -> None:
    task = Task(validate=FileArrays({"labels": Y, "x": X}, "data.npz")).read(["x"])
    np.testing.assert_array_equal(task.validate.inputs["x"], X)
    np.testing.assert_array_equal(task.validate.labels, Y)
    called_labels = Task(validate=FileArrays({"labels": Y, "x": X}, "data.npz")).read(["x", "labels"])
    assert called_labels.validate.labels is None and list(called_labels.validate.inputs) == ["x", "labels"]


def test_training_samples_among_those_that_judge_are_refused() -> None:
    rng = np.random.default_rng(0)
    validate, train = rng.normal(size=(60, 3)).astype(np.float32), rng.normal(size=(50, 3)).astype(np.float32)
    apart = Task(validate={"x": validate}, train={"x": train}).read(["x"])
    assert len(apart.splits(0).certify) + len(apart.splits(0).search) == 60
    train[[7, 30]] = validate[[41, 12]]
    shared = Task(validate={"x": validate}, train={"x": train}).read(["x"])
    with pytest.raises(SlimlineError, match=r"2 of the 60 validate .* in train \(the first is number 12,"):
        shared.splits(0)


def test_samples_are_the_same_only_when_all_of_their_inputs_are() -> None:
    ids = {"user": np.arange(60), "item": np.arange(60) % 7}
    other = {"user": np.arange(60), "item": (np.arange(60) + 1) % 7}
    assert len(Task(validate=ids, train=other).read(["user", "item"]).splits(0).train) == 60
