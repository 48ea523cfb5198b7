"""Random changes of samples: which there are, how far each goes, how they are drawn and applied; kornia makes images'.

Random erasing: Zhong et al. (2017), Random Erasing Data Augmentation, arXiv:1708.04896. Mixtures: Zhang et al. (2018),
mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412, equation 1, for a teacher to answer: Beyer et al. (2022),
Knowledge distillation: A good teacher is patient and consistent, arXiv:2106.05237.

Ours differs: the other sample has at most half of a mixture, and both are moved by one movement.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimline.errors import SlimlineError

Size = tuple[int, int]
"""Height and width."""
Draws = dict[tuple[str, str], Tensor]
"""What was drawn, one row per sample: `MATRIX` for all that moves pixels, `PARTNER` and `SHARE` for mixtures, else by
operation and parameter."""
MATRIX = ("moving", "matrix")
MIX = "mix"
"""The name of mixtures of two samples, which are made before all else and of inputs of any shape."""
PARTNER, SHARE = (MIX, "partner"), (MIX, "share")

AUGMENTATIONS: dict[str, Callable[[Any, Size], tuple[Any, ...]]] = {
    "mirror": lambda kornia, size: (kornia.RandomHorizontalFlip(p=0.5),),
    "shift": lambda kornia, size: (kornia.RandomCrop(size, padding=max(1, min(size) // 14)),),
    "rotate": lambda kornia, size: (kornia.RandomRotation(degrees=10.0, p=1.0),),
    "scale": lambda kornia, size: (kornia.RandomAffine(degrees=0.0, scale=(0.9, 1.1), p=1.0),),
    # In standard deviations of the data, around its mean: pixels need not lie in [0, 1], and nothing is clipped.
    "light": lambda kornia, size: (
        kornia.RandomBrightness((0.8, 1.2), clip_output=False, p=1.0),
        kornia.RandomContrast((0.8, 1.2), clip_output=False, p=1.0),
    ),
    "erase": lambda kornia, size: (kornia.RandomErasing(scale=(0.02, 0.2), ratio=(0.3, 3.3), value=0.0, p=0.5),),
}
"""The operations on images of each name with their ranges, in the order in which they are applied."""
NAMES = (MIX, *AUGMENTATIONS)
SHORT_FORMS = {"image": ("mirror", "shift")}
BETWEEN_PIXELS = {"rotate", "scale"}
"""What has to interpolate; the other movements bring every pixel to the place of another."""


def augmentations(wanted: str | Iterable[str]) -> tuple[str, ...]:
    """The names in ``wanted`` (several, or one string with commas) in the order in which they are applied.

    Raises:
        SlimlineError: a name is unknown.
    """
    parts = wanted.split(",") if isinstance(wanted, str) else wanted
    found: set[str] = set()
    for part in parts if isinstance(parts, Iterable) else [parts]:
        name = part.strip() if isinstance(part, str) else part
        if isinstance(name, str) and (name in SHORT_FORMS or name in NAMES):
            found.update(SHORT_FORMS.get(name, (name,)))
        elif name != "":
            near = difflib.get_close_matches(str(name), [*SHORT_FORMS, *NAMES], n=1)
            raise SlimlineError(
                f"Task(augment={name!r}) is unknown{f' (did you mean {near[0]!r}?)' if near else ''}: use any of "
                f"{', '.join(NAMES)}, or 'image' for {' and '.join(SHORT_FORMS['image'])}."
            )
    return tuple(name for name in NAMES if name in found)


def mixtures(count: int, *seed: int) -> Draws:
    """With which sample each of ``count`` is mixed, and the other's share: 0 to 1/2, so that the sample stays itself.

    Each is the partner of one other; a single sample has none but itself.
    """
    with _seeded(MIX, *seed):
        order, share = torch.randperm(count), torch.rand(count) / 2
    partner = torch.empty_like(order)
    partner[order] = order.roll(1)
    return {PARTNER: partner, SHARE: share}


def mixed(x: Tensor, others: Tensor, share: Tensor) -> Tensor:
    """(1 - share) x + share others: samples (n, ...), and a share (n,) of each."""
    return torch.lerp(x, others, share.view(-1, *[1] * (x.ndim - 1)).to(x.dtype))


class Augmenter:
    """The changes behind some names, for images of one size.

    Args:
        names: keys of `AUGMENTATIONS`; mixtures are for who has the samples.
        size: of the images.
        reference: the size for which movements are drawn; drawn for the same one, they fit images of several sizes.
    """

    def __init__(self, names: tuple[str, ...], size: Size, reference: Size) -> None:
        # Here and not above, since it takes a quarter of a second.
        import kornia.augmentation
        from kornia.geometry.transform import warp_affine

        self.warp_affine: Any = warp_affine
        self.size, self.reference = size, reference
        self.moving: dict[str, Any] = {}
        self.colouring: dict[str, Any] = {}
        for name in names:
            for operation in AUGMENTATIONS[name](kornia.augmentation, reference):
                moves = isinstance(operation, kornia.augmentation.GeometricAugmentationBase2D)
                (self.moving if moves else self.colouring)[f"{name} {type(operation).__name__}"] = operation
        self.mode = "bilinear" if size != reference or BETWEEN_PIXELS & set(names) else "nearest"

    def draw(self, count: int, *seed: int) -> Draws:
        """Changes for ``count`` images, which follow from the seed alone."""
        draws: Draws = {}
        moved = torch.empty(1).expand(count, 1, *self.reference)  # kornia reads no more than the shape
        if self.moving:
            matrix = torch.eye(3).expand(count, 3, 3)
            for key, operation in self.moving.items():
                with _seeded(key, *seed):
                    drawn = operation.forward_parameters(moved.shape)
                matrix = operation.generate_transformation_matrix(moved, drawn, operation.flags) @ matrix
            draws[MATRIX] = _resized(matrix, self.reference, self.size)[:, :2].contiguous()
        for key, operation in self.colouring.items():
            with _seeded(key, *seed):
                drawn = operation.forward_parameters((count, 1, *self.size))
            del drawn["forward_input_shape"]  # the only entry that has no row per image
            draws |= {(key, parameter): values for parameter, values in drawn.items()}
        return draws

    def apply(self, images: Tensor, draws: Draws, mean: Tensor, deviation: Tensor) -> Tensor:
        """The images, (n, channels, height, width), changed as drawn; zeros move in, and what is erased is the mean.

        Args:
            draws: one row per image.
            mean, deviation: of the data, (1, channels, 1, 1).
        """
        changed = images if images.dtype == torch.float64 else images.float()
        if self.moving:
            # One interpolation for all movements: several would blur, and take as many times as long. Positions are
            # counted from the edges of pixels; between the centres of the outer ones a side of 1 has no length.
            matrix = draws[MATRIX].to(changed.dtype)
            changed = self.warp_affine(changed, matrix, self.size, mode=self.mode, align_corners=False)
        if self.colouring:
            changed = (changed - mean) / deviation
            for key, operation in self.colouring.items():
                own = {parameter: values for (owner, parameter), values in draws.items() if owner == key}
                changed = operation(changed, params={**own, "forward_input_shape": torch.tensor(images.shape)})
            changed = changed * deviation + mean
        return changed.to(images.dtype)


@contextmanager
def _seeded(key: str, *seed: int) -> Iterator[None]:
    """Seeds torch's global generator, from which kornia draws, and puts it back as it was.

    Every operation has a seed of its own, so that what it does does not depend on which others there are.
    """
    words = np.random.SeedSequence([*seed, *key.encode()]).generate_state(1, np.uint64)
    state = torch.get_rng_state()
    try:
        torch.default_generator.manual_seed(int(words[0] >> np.uint64(1)))  # torch.manual_seed also reaches the GPUs
        yield
    finally:
        torch.set_rng_state(state)


def _resized(matrix: Tensor, reference: Size, size: Size) -> Tensor:
    """Movements of pixels, (n, 3, 3), for the same images at another size."""
    if size == reference:
        return matrix
    (height, width), (old_height, old_width) = size, reference
    y, x = height / old_height, width / old_width
    # Pixels are squares, so their centres lie at halves: (c + 1/2) grows, not c.
    grow = torch.tensor([[x, 0.0, (x - 1) / 2], [0.0, y, (y - 1) / 2], [0.0, 0.0, 1.0]])
    moved: Tensor = grow @ matrix @ torch.linalg.inv(grow)
    return moved
