"""The layers that are easy to get wrong compute what their equations say, by loops in numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from zoo.architecture import built, floats, tokens
from zoo.causal import TCN, CausalConvolution, WaveNet
from zoo.cifar_resnet import Block
from zoo.language_model import LanguageModel, explicit_attention
from zoo.mobilenet_v3 import divisible
from zoo.recommender import DLRM, TwoTowers, WideAndDeep
from zoo.resnet import SqueezeExcite
from zoo.shufflenet import shuffle
from zoo.siamese import Siamese
from zoo.superresolution import ESPCN
from zoo.yolo import BINS, YOLO


def close(got: Tensor, expected: np.ndarray) -> bool:
    return bool(np.allclose(got.detach().numpy(), expected, atol=1e-5, rtol=1e-5))


def test_the_padded_shortcut_puts_zeros_around_every_second_pixel() -> None:
    x = torch.randn(2, 4, 6, 6)
    expected = np.zeros((2, 8, 3, 3), np.float32)
    for channel in range(4):
        for row in range(3):
            for column in range(3):
                expected[:, channel + 2, row, column] = x[:, channel, 2 * row, 2 * column]
    assert close(Block(4, 8, 2, "A").padded(x), expected)


def test_shuffling_lets_the_groups_take_turns() -> None:
    x = torch.randn(1, 12, 2, 2)
    mixed = shuffle(x, 3)
    for group in range(3):
        for index in range(4):
            assert torch.equal(mixed[:, index * 3 + group], x[:, group * 4 + index])


def test_excitation_multiplies_each_channel_by_one_number() -> None:
    x, layer = torch.randn(2, 8, 3, 3), SqueezeExcite(8, 4)
    ratio = (layer(x) / x).detach().numpy()
    assert np.allclose(ratio, ratio[:, :, :1, :1], rtol=1e-4) and 0 < ratio.min() < ratio.max() < 1
    hidden = np.maximum(x.mean((2, 3)).numpy() @ layer.reduce.weight.detach()[:, :, 0, 0].numpy().T
                        + layer.reduce.bias.detach().numpy(), 0)  # fmt: skip
    logit = hidden @ layer.expand.weight.detach()[:, :, 0, 0].numpy().T + layer.expand.bias.detach().numpy()
    assert np.allclose(ratio[:, :, 0, 0], 1 / (1 + np.exp(-logit)), rtol=1e-4)


@pytest.mark.parametrize(("channels", "rounded"), [(3.2, 8), (12, 16), (19.9, 24), (91, 88), (18, 24), (16, 16)])
def test_widths_are_multiples_of_eight_and_never_lose_a_tenth(channels: float, rounded: int) -> None:
    assert divisible(channels) == rounded and rounded >= 0.9 * channels


def test_a_causal_convolution_is_a_weighted_sum_of_the_past() -> None:
    layer, x = CausalConvolution(2, 3, 3, 4), torch.randn(1, 2, 15)
    weight, bias = layer.conv.weight.detach().numpy(), layer.conv.bias.detach().numpy()
    expected = np.zeros((1, 3, 15))
    for t in range(15):
        expected[0, :, t] = bias
        for k in range(3):
            past = t - 4 * (2 - k)
            if past >= 0:
                expected[0, :, t] += weight[:, :, k] @ x[0, :, past].numpy()
    assert close(layer(x), expected)


@pytest.mark.parametrize("norm", ["none", "weight"])
def test_a_tcn_never_looks_ahead(norm: str) -> None:
    inputs = floats(series=(2, 24))
    module = built(lambda: TCN(2, 6, 3, 3, 4, norm), inputs)
    before = inputs(1)["series"]
    after = before.clone()
    after[:, :, 15:] += 1
    changed = (module(before) - module(after)).abs().amax((0, 2))
    assert (changed[:15] == 0).all() and (changed[15:] > 0).all()


def test_wavenet_and_the_language_model_never_look_ahead() -> None:
    inputs = tokens(20, (16,))
    for module in (
        built(lambda: WaveNet(20, 6, 8, 3), inputs),
        built(lambda: LanguageModel(20, 16, 12, 3, 2, "fused"), inputs),
        built(lambda: LanguageModel(20, 16, 12, 3, 2, "explicit"), inputs),
    ):
        before = inputs(1)["tokens"]
        after = before.clone()
        after[:, 10] = (after[:, 10] + 1) % 20
        difference = module(before) - module(after)
        over_words = difference.transpose(1, 2) if isinstance(module, WaveNet) else difference
        changed = over_words.abs().amax((0, 2))
        assert (changed[:10] < 1e-6).all() and changed[10] > 1e-3


def test_explicit_attention_is_the_softmax_over_the_past() -> None:
    q, k, v = torch.randn(3, 1, 2, 7, 4)
    expected = np.zeros((1, 2, 7, 4))
    for head in range(2):
        for t in range(7):
            scores = np.array([float(q[0, head, t] @ k[0, head, s]) / 2 for s in range(t + 1)])
            shares = np.exp(scores) / np.exp(scores).sum()
            expected[0, head, t] = sum(share * v[0, head, s].numpy() for s, share in enumerate(shares))
    assert close(explicit_attention(q, k, v), expected)
    inputs = tokens(20, (16,))
    both = [built(lambda how=how: LanguageModel(20, 16, 12, 3, 2, how), inputs) for how in ("fused", "explicit")]
    assert close(both[0](**inputs(3)), both[1](**inputs(3)).detach().numpy())
    assert both[0].get_submodule("head").weight is both[0].get_submodule("words").weight


def test_dlrm_multiplies_every_pair_of_vectors_once() -> None:
    vectors = torch.randn(3, 4, 16)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    expected = np.array([[float(sample[i] @ sample[j]) for i, j in pairs] for sample in vectors])
    assert close(DLRM().interactions(vectors), expected)


def test_both_towers_read_the_same_table_of_items() -> None:
    module = TwoTowers().eval()
    inputs = {
        "user": torch.tensor([1]),
        "history": torch.tensor([[7, 7, 7, 7, 7]]),
        "item": torch.tensor([7]),
        "kind": torch.tensor([2]),
    }
    with torch.no_grad():
        before = module(**inputs)
        module.items.weight[7] += 1
        after = module(**inputs)
    assert all(not torch.allclose(before[name], after[name]) for name in ("user_vector", "item_vector"))
    for found in (before, after):
        u, v = found["user_vector"].numpy()[0], found["item_vector"].numpy()[0]
        assert abs(np.linalg.norm(u) - 1) < 1e-5 and abs(float(found["score"][0]) - u @ v) < 1e-5


def test_the_wide_part_adds_one_weight_per_feature() -> None:
    module = WideAndDeep().eval()
    rest = {"features": torch.zeros(1, 2, dtype=torch.int64), "dense": torch.zeros(1, 7)}
    table = module.wide.weight.detach()[:, 0]
    one, other = (module(crossed=torch.tensor([ids]), **rest).detach() for ids in ([1, 2, 3, 3], [4, 5, 6, 7]))
    expected = table[[1, 2, 3, 3]].sum() - table[[4, 5, 6, 7]].sum()
    assert abs(float(one - other) - float(expected)) < 1e-5


def test_siamese_does_not_care_which_image_is_first_and_knows_equal_ones() -> None:
    module = Siamese(((4, 4), (6, 3)), 17, 8).eval()
    one, other = torch.randn(2, 3, 1, 17, 17)
    assert torch.equal(module(one, other), module(other, one))
    assert torch.equal(module(one, one), module.head.bias.sigmoid().expand(3, 1))


def test_superresolution_makes_pixels_of_channels() -> None:
    module = ESPCN(3, 2, (6, 5)).eval()
    image = torch.randn(1, 3, 4, 4)
    small = module.conv3(module.conv2(module.conv1(image).tanh()).tanh()).detach().numpy()
    expected = np.zeros((1, 3, 8, 8), np.float32)
    for channel, row, column, i, j in np.ndindex(3, 4, 4, 2, 2):
        expected[0, channel, 2 * row + i, 2 * column + j] = small[0, channel * 4 + 2 * i + j, row, column]
    assert close(module(image), expected)


def test_a_detector_gives_the_expected_bin_of_every_side() -> None:
    """Heads that answer the same everywhere: the bins of side s get the logits of a known distribution."""
    module = YOLO(8, (1, 1, 1, 1), 5).eval()
    logits = np.random.default_rng(0).normal(size=(4, BINS))
    for head in module.heads:
        assert isinstance(head.boxes, nn.Sequential)
        last = head.boxes[-1]
        nn.init.zeros_(last.weight)
        last.bias = nn.Parameter(torch.from_numpy(logits.reshape(-1)).float())
    boxes = module(torch.randn(1, 3, 64, 64))["boxes"]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert boxes.shape == (1, 4, 8 * 8 + 4 * 4 + 2 * 2)
    assert close(boxes, np.broadcast_to((shares @ np.arange(BINS))[None, :, None], boxes.shape))
