"""The user's data and what counts as quality."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.numerics.augment import augmentations
from slimline.scores import SCORES, Array, FirstOutput, ScoreFunction, Scores, agreement, describe, first_output

__all__ = ["Array", "FileArrays", "Samples", "ScoreFunction", "Scores", "Splits", "Task", "read_samples"]

SYNTHETIC = "synthetic"
CALIBRATE_AT_MOST = 1024
SEARCH_SHARE = 0.3
FEWEST_PER_SPLIT = 20
DECIDE_SAMPLES = 32
"""Samples on which the original runs to see what its first output is."""


class FileArrays(dict[str, Array]):
    """The arrays of a data file by name. Every name has to be that of an input, or ``labels``: nothing is guessed."""

    def __init__(self, arrays: Mapping[str, Array], path: str) -> None:
        super().__init__(arrays)
        self.path = path


@dataclass(frozen=True)
class Samples:
    """Arrays by input name, batch axis first, and the labels if there are any."""

    inputs: dict[str, Array]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, index: slice | NDArray[np.int64]) -> "Samples":
        return Samples(
            {k: v[index] for k, v in self.inputs.items()}, None if self.labels is None else self.labels[index]
        )

    def tensors(self) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in self.inputs.items()}

    def hashes(self) -> list[bytes]:
        """One hash per sample, of the bytes of all of its inputs."""
        columns = [np.ascontiguousarray(array) for array in self.inputs.values()]
        found = []
        for place in range(len(self)):
            total = hashlib.blake2b(digest_size=16)
            for column in columns:
                total.update(column[place].tobytes())
            found.append(total.digest())
        return found

    def digest(self) -> str:
        """SHA-256 of every byte of the samples."""
        total = hashlib.sha256()
        for array in [*self.inputs.values(), *([] if self.labels is None else [self.labels])]:
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()


@dataclass(frozen=True)
class Splits:
    """Samples that never overlap, except that calibration is drawn from the training samples."""

    train: Samples
    calibrate: Samples
    search: Samples
    certify: Samples


@dataclass(frozen=True)
class Task:
    """What the network is for.

    Args:
        validate: samples the network was not trained on: a loader, (inputs, labels), or a dict of arrays by input name
            with an optional ``labels`` entry. A loader yields (inputs, labels), inputs, or dicts.
        score: ``accuracy`` (labels are class numbers) or a function (outputs, labels) -> one score per sample; without
            labels how far the first output agrees with the original's: ``agreement`` (share of equal argmax, of equal
            entries for whole numbers), ``cosine`` or ``relative`` (1 - relative error). When left out, accuracy where
            there are labels, else what fits the output by the rules in `slimline.scores`.
        train: samples for recovery and calibration, in the same forms; a part of ``validate`` when absent. The word
            ``synthetic`` where the data is private: inputs made from the network itself take their place, and
            ``validate`` only judges.
        augment: how recovery may change samples, by the names in `slimline.numerics.augment`: one, several with commas,
            or a sequence; ``image`` for mirror and shift, ``mix`` for mixtures of two samples, of images or of other
            floating-point numbers (masks among them), unless an input holds whole numbers. The original network labels
            what comes out.
        student: a network or torch module with the original's inputs and outputs, which `OwnStudent` puts in its place.
    """

    validate: Any
    score: str | ScoreFunction = ""
    train: Any = None
    augment: str | Sequence[str] = ""
    original: "Network | None" = field(default=None, repr=False)
    """The network before any method; the teacher of recovery. Set by a recipe."""
    output: FirstOutput | None = field(default=None, repr=False)
    """What the original's first output is; set by `decided`."""
    synthetic: bool = field(default=False, repr=False)
    """Whether the training samples were made from the network."""
    student: "Network | torch.nn.Module | None" = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "augment", augmentations(self.augment))
        if isinstance(self.train, str) and self.train != SYNTHETIC:
            raise SlimlineError(f"Task(train={self.train!r}) is unknown: give samples, or the word {SYNTHETIC!r}.")
        for what, source in (("validate", self.validate), ("train", self.train)):
            if isinstance(source, Iterator):
                raise SlimlineError(
                    f"Task({what}=...) is a {type(source).__name__}, which can be read only once: give a loader "
                    f"or a list."
                )
        if self.student is not None and not isinstance(self.student, (torch.nn.Module, Network)):
            raise SlimlineError(
                f"Task(student=...) is a {type(self.student).__name__}: give a torch module or a slimline.Network."
            )
        if isinstance(self.score, str) and self.score not in ("", *SCORES):
            raise SlimlineError(f"Task(score={self.score!r}) is unknown: use {', '.join(SCORES)} or a function.")

    @property
    def wants_synthetic(self) -> bool:
        """Whether training samples have still to be made from the network."""
        return isinstance(self.train, str)

    @property
    def compares_classes(self) -> bool:
        """Whether the first output holds class scores that are compared as such; known once the task is decided."""
        if self.output is None or self.output.integers:
            return False
        return (self.output.score if callable(self.score) else self.score) in ("accuracy", "agreement")

    def labels_decide(self, samples: Samples) -> bool:
        """Whether the score compares with the labels of the samples and not with the original's answers."""
        return samples.labels is not None and (callable(self.score) or self.score == "accuracy")

    def with_original(self, network: "Network") -> "Task":
        return replace(self, original=network)

    def read(self, input_names: Sequence[str]) -> "Task":
        """The same task with its data read into arrays, checked and named.

        Raises:
            SlimlineError: empty, not finite, of unequal lengths, or without the labels that the score needs.
        """
        validate = read_samples(self.validate, input_names, "validate")
        given = self.train is not None and not self.wants_synthetic
        train = read_samples(self.train, input_names, "train") if given else self.train
        score = self.score or ("accuracy" if validate.labels is not None else "agreement")
        if score == "accuracy" and validate.labels is None:
            raise SlimlineError("Task(score='accuracy') needs labels in validate: give them, or use score='agreement'.")
        return replace(self, validate=validate, train=train, score=score)

    def decided(self, network: "Network") -> "Task":
        """The same task read for this original: its arrays have the network's types, its score fits the first output.

        The network runs on a few samples, spread over all of them, once; a task that is decided stays as it is.

        Raises:
            SlimlineError: data that cannot be read or that the network does not take.
        """
        read = self.read(network.input_names)
        if read.output is not None:
            return read
        validate = _fitted(read.validate, network, "validate")
        train = _fitted(read.train, network, "train") if isinstance(read.train, Samples) else read.train
        index = np.unique(np.linspace(0, len(validate) - 1, DECIDE_SAMPLES).astype(np.int64))
        try:
            answers = network.run(validate.take(index).tensors())[0].numpy()
        except (RuntimeError, IndexError) as error:  # such as an index beyond the rows of an embedding
            first = str(error).strip().splitlines()[0]
            raise SlimlineError(f"The network cannot run on the validate data: {first}.") from error
        output = first_output(network, answers)
        score = read.score if self.score or validate.labels is not None else output.score
        return replace(read, validate=validate, train=train, score=score, output=output)

    def splits(self, seed: int) -> Splits:
        """Disjoint splits of a task that has been read; the same seed gives the same splits.

        Raises:
            SlimlineError: too few samples, or training samples among those that judge.
        """
        validate: Samples = self.validate
        order = np.random.default_rng(seed).permutation(len(validate))
        need = FEWEST_PER_SPLIT * (2 if self.train is not None else 3)
        if len(validate) < need:
            raise SlimlineError(
                f"The task has {len(validate)} validation samples, too few to split into "
                f"{'search and certify' if self.train is not None else 'calibrate, search and certify'}: "
                f"give at least {need}."
            )
        if self.train is None:
            cut = min(len(order) * 2 // 5, len(order) - 2 * FEWEST_PER_SPLIT)
            train, order = validate.take(np.sort(order[:cut])), order[cut:]
        else:
            train = self.train
            _refuse_overlap(train, validate)
        picked = np.random.default_rng(seed + 1).permutation(len(train))[:CALIBRATE_AT_MOST]
        cut = max(FEWEST_PER_SPLIT, int(len(order) * SEARCH_SHARE))
        return Splits(
            train,
            train.take(np.sort(picked)),
            validate.take(np.sort(order[:cut])),
            validate.take(np.sort(order[cut:])),
        )

    def identity(self) -> str:
        """Everything that decides what is learnt from a task that has been read, in words."""
        samples = [x.digest() if isinstance(x, Samples) else str(x) for x in (self.train, self.validate)]
        teacher = "" if self.original is None else self.original.digest()
        return f"{samples} {self.describe_score()} {self.augment} {self.synthetic} {teacher}"

    def describe_score(self) -> str:
        """What the score is, in words."""
        if callable(self.score):
            return f"mean of the user's score function {getattr(self.score, '__name__', 'score')}"
        return describe(str(self.score or "agreement"), self.output)

    def _own_score(self, outputs: list[Array], labels: Array) -> Scores:
        assert callable(self.score)
        try:
            return np.asarray(self.score(outputs, labels), dtype=np.float64)
        except SlimlineError:
            raise
        except Exception as error:  # the user's own code may raise anything
            raise SlimlineError(
                f"The score function failed on outputs of shape {[o.shape for o in outputs]}: "
                f"{type(error).__name__}: {error}."
            ) from error

    def per_sample(self, outputs: list[Array], samples: Samples, original: list[Array]) -> Scores:
        """One score per sample.

        Args:
            outputs: the candidate's output arrays, batch first.
            original: the original's outputs for the same samples.

        Raises:
            SlimlineError: outputs that do not match the labels, or scores that are not finite numbers.
        """
        if callable(self.score):
            labels = samples.labels if samples.labels is not None else original[0]
            scores = self._own_score(outputs, labels)
        elif self.score == "accuracy":
            assert samples.labels is not None
            scores = SCORES["accuracy"](outputs, samples.labels)
        elif self.score == "agreement":
            scores = agreement(outputs, original[0], None if self.output is None else self.output.axis)
        else:
            scores = SCORES[str(self.score)](outputs, original[0])
        if scores.shape != (len(samples),):
            raise SlimlineError(
                f"The score function returned shape {scores.shape} for {len(samples)} samples: return one score "
                f"per sample."
            )
        if not np.isfinite(scores).all():
            first = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise SlimlineError(f"The score of sample {first} is {scores[first]}: scores have to be finite numbers.")
        return scores


def data_digest(task: Task, splits: Splits) -> str:
    """Of everything that a run learns from and is judged by, as its certificate holds it."""
    return hashlib.sha256(f"{splits.train.digest()}{task.validate.digest()}".encode()).hexdigest()


def _refuse_overlap(train: Samples, validate: Samples) -> None:
    """A verdict on samples that the network has learnt from would be worth nothing.

    Raises:
        SlimlineError: a sample of the one is, bit for bit, one of the other.
    """
    known = set(train.hashes())
    common = [place for place, found in enumerate(validate.hashes()) if found in known]
    if common:
        raise SlimlineError(
            f"{len(common)} of the {len(validate):,} validate samples are also in train (the first is number "
            f"{common[0]}, counted from 0): take them out of one of the two, since the verdict has to come "
            "from samples that nothing was learnt from."
        )


def _batches(source: Iterable[Any], what: str) -> list[Any]:
    try:
        return list(source)
    except SlimlineError:
        raise
    except Exception as error:  # the user's own code may raise anything
        raise SlimlineError(f"The {what} loader failed: {type(error).__name__}: {error}.") from error


def read_samples(source: Any, input_names: Sequence[str], what: str) -> Samples:
    """Read a loader, (inputs, labels), or a dict of arrays into `Samples`, and check them."""
    if isinstance(source, Samples):
        return _checked(source, what)
    if isinstance(source, Mapping):
        return _checked(_from_mapping(source, input_names, what), what)
    if isinstance(source, tuple) and len(source) == 2:
        name = _only(input_names, what)
        return _checked(Samples({name: _array(source[0], name, what)}, _array(source[1], "labels", what)), what)
    if not isinstance(source, Iterable):
        raise SlimlineError(
            f"Task({what}=...) is a {type(source).__name__}: give a loader, (inputs, labels) or a dict of arrays."
        )
    batches = [_from_batch(batch, input_names, what) for batch in _batches(source, what)]
    if not batches:
        raise SlimlineError(f"The {what} loader is empty: it has to yield at least one batch.")
    labels = [b.labels for b in batches if b.labels is not None]
    inputs = {name: _joined([b.inputs[name] for b in batches], name, what) for name in input_names}
    return _checked(Samples(inputs, _joined(labels, "labels", what) if labels else None), what)


def _only(input_names: Sequence[str], what: str) -> str:
    if len(input_names) > 1:
        raise SlimlineError(
            f"The network has the inputs {', '.join(input_names)}, but the {what} data has one array without a name: "
            "give a dict of arrays by input name."
        )
    return input_names[0]


def _array(value: Any, name: str, what: str) -> Array:
    try:
        array: Array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    except ValueError as error:  # numpy on nested lists of unequal lengths
        raise SlimlineError(f"In the {what} data {name!r} is not an array: {error}") from error
    if array.ndim == 0:
        raise SlimlineError(
            f"In the {what} data {name!r} is a single {type(value).__name__}: give batches with one entry per sample, "
            "such as DataLoader(dataset, batch_size=64)."
        )
    return array


def _joined(batches: list[Array], name: str, what: str) -> Array:
    shapes = {batch.shape[1:] for batch in batches}
    if len(shapes) > 1:
        raise SlimlineError(
            f"In the {what} data the samples of {name!r} have the shapes {', '.join(map(str, sorted(shapes)))}: "
            "make them equal; (inputs, labels) without batches have to be a tuple."
        )
    return np.concatenate(batches)


def _from_mapping(source: Mapping[str, Any], input_names: Sequence[str], what: str) -> Samples:
    absent = [name for name in input_names if name not in source]
    if isinstance(source, FileArrays) and (absent or set(source) - {*input_names, "labels"}):
        raise SlimlineError(
            f"{source.path} holds the arrays {', '.join(source) or '(none)'}, but the inputs of the network are "
            f"{', '.join(input_names)}: name one array after each input, the labels (if any) 'labels', and leave out "
            "the rest."
        )
    if absent:
        raise SlimlineError(f"The {what} data has no array for the input {absent[0]!r}; it has {sorted(source)}.")
    labelled = "labels" in source and "labels" not in input_names
    labels = _array(source["labels"], "labels", what) if labelled else None
    return Samples({name: _array(source[name], name, what) for name in input_names}, labels)


def _from_batch(batch: Any, input_names: Sequence[str], what: str) -> Samples:
    if isinstance(batch, Mapping):
        return _from_mapping(batch, input_names, what)
    if isinstance(batch, torch.Tensor | np.ndarray):
        name = _only(input_names, what)
        return Samples({name: _array(batch, name, what)})
    if isinstance(batch, (tuple, list)) and len(batch) in (len(input_names), len(input_names) + 1):
        inputs = {name: _array(value, name, what) for name, value in zip(input_names, batch, strict=False)}
        return Samples(inputs, _array(batch[-1], "labels", what) if len(batch) > len(input_names) else None)
    raise SlimlineError(
        f"The {what} loader yields a {type(batch).__name__} that is neither (inputs, labels), inputs nor a dict."
    )


def _checked(samples: Samples, what: str) -> Samples:
    if len(samples) == 0:
        raise SlimlineError(f"The {what} data is empty: give at least one sample.")
    columns: dict[str, Array] = dict(samples.inputs)
    if samples.labels is not None:
        columns["labels"] = samples.labels
    for name, array in columns.items():
        if len(array) != len(samples):
            raise SlimlineError(
                f"In the {what} data {name!r} has {len(array)} samples and another array {len(samples)}."
            )
        if array.dtype == object:
            raise SlimlineError(f"In the {what} data {name!r} holds Python objects: give an array of numbers.")
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            first = int(np.argwhere(~np.isfinite(array))[0][0])
            raise SlimlineError(
                f"In the {what} data {name!r} has NaN or infinity in sample {first}: remove or repair it."
            )
    return samples


def _fitted(samples: Samples, network: "Network", what: str) -> Samples:
    """The samples in the types that the network takes; only the width of a number may be changed."""
    inputs = {}
    for name, example in network.examples.items():
        array, wanted = samples.inputs[name], example[:0].numpy()
        if array.shape[1:] != wanted.shape[1:]:
            raise SlimlineError(
                f"In the {what} data a sample of {name!r} has the shape {array.shape[1:]}, but the network takes "
                f"{wanted.shape[1:]}."
            )
        inputs[name] = array if array.dtype == wanted.dtype else _as_type(array, wanted.dtype, name, what)
    return Samples(inputs, samples.labels)


def _as_type(array: Array, wanted: np.dtype[Any], name: str, what: str) -> Array:
    both_float = np.issubdtype(array.dtype, np.floating) and np.issubdtype(wanted, np.floating)
    both_whole = np.issubdtype(array.dtype, np.integer) and np.issubdtype(wanted, np.integer)
    converted: Array = array.astype(wanted) if both_float or both_whole else array
    if not both_float and not (both_whole and np.array_equal(converted, array)):
        raise SlimlineError(
            f"In the {what} data {name!r} holds {array.dtype}, but the network takes {wanted}: convert it as the "
            "network's training did."
        )
    return converted
