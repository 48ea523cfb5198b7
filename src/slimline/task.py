"""The user's data and what counts as quality."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimline.errors import SlimlineError

if TYPE_CHECKING:
    from slimline.network.network import Network

Array = NDArray[Any]
Scores = NDArray[np.float64]
ScoreFunction = Callable[[list[Array], Array], Scores]
"""(outputs, labels) -> one score per sample, higher is better."""

CALIBRATE_AT_MOST = 1024
SEARCH_SHARE = 0.3
FEWEST_PER_SPLIT = 20
DESCRIPTIONS = {"accuracy": "accuracy on labels", "agreement": "agreement with the original network (argmax)"}


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
        score: ``accuracy`` (labels are class numbers), ``agreement`` (argmax equals the original's; needs no labels)
            or a function (outputs, labels) -> one score per sample.
        train: samples for recovery and calibration, in the same forms; a part of ``validate`` when absent.
        augment: ``image`` lets recovery mirror and shift images; the original network labels what comes out.
    """

    validate: Any
    score: str | ScoreFunction = ""
    train: Any = None
    augment: str = ""
    original: "Network | None" = field(default=None, repr=False)
    """The network before any method; the teacher of recovery. Set by a recipe."""

    def __post_init__(self) -> None:
        if self.augment not in ("", "image"):
            raise SlimlineError(f"Task(augment={self.augment!r}) is unknown: use 'image' or leave it out.")
        for what, source in (("validate", self.validate), ("train", self.train)):
            if isinstance(source, Iterator):
                raise SlimlineError(
                    f"Task({what}=...) is a {type(source).__name__}, which can be read only once: give a loader "
                    f"or a list."
                )
        if isinstance(self.score, str) and self.score not in ("", *SCORES):
            raise SlimlineError(f"Task(score={self.score!r}) is unknown: use {', '.join(SCORES)} or a function.")

    def with_original(self, network: "Network") -> "Task":
        return replace(self, original=network)

    def read(self, input_names: Sequence[str]) -> "Task":
        """The same task with its data read into arrays, checked and named.

        Raises:
            SlimlineError: empty, not finite, of unequal lengths, or without the labels that the score needs.
        """
        validate = read_samples(self.validate, input_names, "validate")
        train = None if self.train is None else read_samples(self.train, input_names, "train")
        score = self.score or ("accuracy" if validate.labels is not None else "agreement")
        if score == "accuracy" and validate.labels is None:
            raise SlimlineError("Task(score='accuracy') needs labels in validate: give them, or use score='agreement'.")
        return replace(self, validate=validate, train=train, score=score)

    def splits(self, seed: int) -> Splits:
        """Disjoint splits of a task that has been read; the same seed gives the same splits.

        Raises:
            SlimlineError: too few samples.
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
        picked = np.random.default_rng(seed + 1).permutation(len(train))[:CALIBRATE_AT_MOST]
        cut = max(FEWEST_PER_SPLIT, int(len(order) * SEARCH_SHARE))
        return Splits(
            train,
            train.take(np.sort(picked)),
            validate.take(np.sort(order[:cut])),
            validate.take(np.sort(order[cut:])),
        )

    def describe_score(self) -> str:
        """What the score is, in words."""
        if callable(self.score):
            return f"mean of the user's score function {getattr(self.score, '__name__', 'score')}"
        return DESCRIPTIONS[str(self.score)]

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
        else:
            reference = samples.labels if self.score == "accuracy" else _classes(original[0])
            assert reference is not None
            scores = SCORES[str(self.score)](outputs, reference)
        if scores.shape != (len(samples),):
            raise SlimlineError(
                f"The score function returned shape {scores.shape} for {len(samples)} samples: return one score "
                f"per sample."
            )
        if not np.isfinite(scores).all():
            first = int(np.flatnonzero(~np.isfinite(scores))[0])
            raise SlimlineError(f"The score of sample {first} is {scores[first]}: scores have to be finite numbers.")
        return scores


def _classes(logits: Array) -> Array:
    if logits.ndim != 2:
        raise SlimlineError(
            f"The model's output has shape {logits.shape}: agreement needs (samples, classes); "
            "give Task(score=your_function) for other outputs."
        )
    classes: Array = logits.argmax(1)
    return classes


def accuracy(outputs: list[Array], labels: Array) -> Scores:
    """1 where the largest of (N, classes) outputs is the label, else 0.

    Raises:
        SlimlineError: the outputs are not (N, classes) or a label is not a class number.
    """
    logits = outputs[0]
    if logits.ndim != 2 or len(logits) != len(labels):
        raise SlimlineError(
            f"The model's output has shape {logits.shape}, which does not match {len(labels)} class labels: "
            "accuracy needs (samples, classes); give Task(score=your_function) for other outputs."
        )
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise SlimlineError(
            f"Labels of shape {labels.shape} and type {labels.dtype} are not class numbers: accuracy needs one "
            f"integer per sample."
        )
    if len(labels) and (labels.min() < 0 or labels.max() >= logits.shape[1]):
        raise SlimlineError(
            f"The model has {logits.shape[1]} classes but the labels run from {labels.min()} to {labels.max()}: "
            "the output does not match the labels."
        )
    right: Scores = (logits.argmax(1) == labels).astype(np.float64)
    return right


SCORES: dict[str, ScoreFunction] = {"accuracy": accuracy, "agreement": accuracy}


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
    if absent:
        raise SlimlineError(f"The {what} data has no array for the input {absent[0]!r}; it has {sorted(source)}.")
    labels = _array(source["labels"], "labels", what) if "labels" in source else None
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
