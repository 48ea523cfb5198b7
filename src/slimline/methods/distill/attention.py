"""Attention transfer: the student looks where the teacher looks, whatever the numbers of their channels or heads.

Zagoruyko, Komodakis (2017). Paying More Attention to Attention: Improving the Performance of Convolutional Neural
Networks via Attention Transfer. arXiv:1612.03928, equations 1 and 2 with F = F_sum^2 and p = 2. And for transformers:
Jiao et al. (2020). TinyBERT: Distilling BERT for Natural Language Understanding. arXiv:1909.10351, equation 7.

    Q = sum over channels c of |A_c|^2, one number per place
    L = 1/2 || Q_S / |Q_S| - Q_T / |Q_T| ||^2 = 1 - cos(Q_S, Q_T)

    L = mean over heads and queries of  sum over keys of  T log(T / S)        S, T: rows of softmax(Q K^T / sqrt(d))

Ours differs. Maps: the squared distance, whose gradient fades where the maps agree; the mean over samples; tokens
(N, T, D) are treated as maps of T places. Distributions: TinyBERT takes the squared distance of the scores before the
softmax, which a mask of -10^38 would drown and which counts constants that the softmax ignores; we take the divergence
of what comes after it, as MobileBERT does (Sun et al. 2020, arXiv:2004.02984). Where the numbers of heads differ, the
means over the heads are compared, which are distributions too. Padded places count like others.

Helps: pruned copies with few data, and needs no regressor. The maps of two such networks differ by little, so that the
first L needs a large weight: beside logits at temperature 4, the demo network gained up to a weight of 100 and less
beyond.  Does not: say what is seen at a place; features of one place have no map.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from slimline.errors import SlimlineError


def attention_map(x: Tensor, axis: int = 1) -> Tensor:
    """Q / |Q|: (N, places) for features whose channels lie on ``axis``; places in the order of their axes."""
    x = x if x.dtype is torch.float64 else x.float()
    return F.normalize(x.square().sum(axis).flatten(1), dim=1)


def attention_loss(student: Tensor, teacher: Tensor, axis: int = 1) -> Tensor:
    """The first L above, in [0, 1].

    Args:
        student, teacher: (N, C, H, W), (N, C, L), or (N, T, D) with ``axis=2``; only the channels may differ.

    Raises:
        SlimlineError: the features have other places, or a single one, where every map is the same.
    """
    places = [(*x.shape[:axis], *x.shape[axis + 1 :]) for x in (student, teacher)]
    if places[0] != places[1] or math.prod(places[0][1:]) < 2:
        raise SlimlineError(
            f"Maps of attention of shapes {tuple(student.shape)} and {tuple(teacher.shape)} cannot be compared: "
            f"apart from the channels on axis {axis} they need the same places, at least two."
        )
    return 0.5 * (attention_map(student, axis) - attention_map(teacher, axis)).square().sum(1).mean()


def self_attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The second L above, in nats.

    Args:
        student, teacher: distributions (N, heads, queries, keys) over the keys; the numbers of heads may differ.

    Raises:
        SlimlineError: the numbers of queries or keys differ.
    """
    if student.shape[:1] + student.shape[2:] != teacher.shape[:1] + teacher.shape[2:]:
        raise SlimlineError(
            f"Attention of shape {tuple(student.shape)} cannot be compared with {tuple(teacher.shape)}: "
            "only the numbers of heads, on axis 1, may differ."
        )
    if student.shape[1] != teacher.shape[1]:
        student, teacher = student.mean(1, keepdim=True), teacher.mean(1, keepdim=True)
    student, teacher = (x if x.dtype is torch.float64 else x.float() for x in (student, teacher))
    logs = student.clamp_min(torch.finfo(torch.float32).tiny).log()  # masked keys have no share in either
    return F.kl_div(logs, teacher, reduction="sum") / (teacher.numel() // teacher.shape[-1])
