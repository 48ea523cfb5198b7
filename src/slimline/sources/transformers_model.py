"""A model of Hugging Face transformers, in memory or in a folder -> Network. Nothing is ever fetched from a hub."""

import contextlib
import copy
import importlib
import inspect
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.sources.made_up_inputs import made_up_inputs

EXAMPLES = 2
TRACED_WITH = {"use_cache": False, "return_dict": True, "output_hidden_states": False, "output_attentions": False}
"""Settings of a model's configuration while it is traced: named outputs, and no nested ones."""
TRACEABLE_ATTENTION = ("eager", "sdpa", None)
TARGETS = ("labels", "label", "label_ids", "start_positions", "end_positions", "next_sentence_label", "return_loss")
"""What forward() takes for a loss, and no deployed network has as an input."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
CHOOSES_CODE = ("attn_implementation", "experts_implementation", "transformers_weights")
"""Ends of configuration keys that may name kernels on a hub or another file of weights."""
LARGEST_TEXT = 64 * 2**20
BUFFERS = 2**26
"""Numbers that a model may keep without storing them, such as tables of positions and masks."""
MOST_LAYERS = 10_000
"""Above it, a configuration would build modules for hours before anything looks at the weights."""


def is_pretrained_model(module: nn.Module) -> bool:
    """Whether a module is one of transformers; without importing that package, which takes seconds."""
    loaded = sys.modules.get("transformers.modeling_utils")
    return loaded is not None and isinstance(module, loaded.PreTrainedModel)


def from_pretrained_model(model: Any, data: Mapping[str, Any] | None = None) -> Network:
    """Trace a `transformers.PreTrainedModel`; outputs are named by the keys of its ModelOutput, such as ``logits``.

    The network computes in float32. The length of a text is that of the example; the batch is free.

    Args:
        model: it is left as it was.
        data: example inputs by name; those that ``forward`` takes are used. Made up from the configuration without it.

    Raises:
        SlimlineError: it is no such model, it cannot be traced, or the data has not its inputs.
    """
    if not is_pretrained_model(model):
        raise SlimlineError(f"A {type(model).__name__} is no transformers.PreTrainedModel: use from_module.")
    plain = _in_float32(model)
    return _traced(plain, made_up_inputs(plain, input_names(plain)) if data is None else _chosen(plain, data))


def from_folder(folder: Path, data: Mapping[str, Any] | None = None) -> Network:
    """Read a folder that `save_pretrained` wrote: config.json, safetensors and, if there, the tokenizer's settings.

    Args:
        data: example inputs by name, as for `from_pretrained_model`.

    Raises:
        SlimlineError: transformers is not installed, the folder asks for code or holds pickles only, or its weights
            do not fit its configuration.
    """
    folder = Path(folder)
    try:
        config = _read_config(folder)
        _check_weights(folder)
        transformers = _transformers()
        with _offline(transformers):
            model, unread = _load(folder, config, transformers)
            if data is None:
                names = input_names(model, _tokenizer_names(folder, transformers))
                inputs = made_up_inputs(model, names, _read_optional(folder / "preprocessor_config.json"))
            else:
                inputs = _chosen(model, data)
            network = _traced(model, inputs)
    except SlimlineError as error:
        raise SlimlineError(f"{folder} cannot be imported: {error}") from error
    without = f" without {len(unread)} weights that {type(model).__name__} never reads" if unread else ""
    network.history = [f"imported from {folder.resolve().name}{without}", *network.history]
    return network


def _transformers() -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        raise SlimlineError("transformers is not installed: run `pip install slimline[transformers]`.") from error
    module: ModuleType = transformers
    return module


@contextlib.contextmanager
def _offline(transformers: ModuleType) -> Iterator[None]:
    """Without a hub, progress bars and reports, whatever the user's process has set."""
    constants: Any = importlib.import_module("huggingface_hub.constants")  # a part of transformers' own installation
    logging = transformers.utils.logging
    before = os.environ.get("HF_HUB_OFFLINE"), constants.HF_HUB_OFFLINE, logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    os.environ["HF_HUB_OFFLINE"], constants.HF_HUB_OFFLINE = "1", True
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if before[0] is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before[0]
        constants.HF_HUB_OFFLINE = before[1]
        logging.set_verbosity(before[2])
        if bars:
            logging.enable_progress_bar()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SlimlineError(f"{path.name} is missing: give a folder that save_pretrained() wrote.")
    if path.stat().st_size > LARGEST_TEXT:
        raise SlimlineError(f"{path.name} has {path.stat().st_size:,} bytes, more than any such file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SlimlineError(f"{path.name} is not readable JSON ({str(error)[:100]}): copy it again.") from error
    if not isinstance(content, dict):
        raise SlimlineError(f"{path.name} holds a {type(content).__name__} instead of an object: copy it again.")
    return content


def _read_optional(path: Path) -> dict[str, Any]:
    return _read_json(path) if path.is_file() else {}


def _read_config(folder: Path) -> dict[str, Any]:
    """The configuration, without anything that would make transformers look elsewhere."""
    config = _read_json(folder / "config.json")
    for name in ("config.json", "tokenizer_config.json"):
        if "auto_map" in _read_optional(folder / name):
            raise SlimlineError(
                f"its {name} asks to run Python code that came with the model (auto_map): load the model in a JOB.py, "
                "where you decide about that code."
            )
    if (folder / "adapter_config.json").exists():
        raise SlimlineError("it holds an adapter for another model: merge both with merge_and_unload() and save that.")
    if config.get("quantization_config"):
        raise SlimlineError("its weights are quantised already: give the original in floating point.")
    return _checked(config)


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if key.endswith(CHOOSES_CODE):
            continue
        if "layer" in key and isinstance(value, int) and value > MOST_LAYERS:
            raise SlimlineError(f"its config.json asks for {key}={value:,}, more than any network has.")
        kept[key] = _checked(value) if isinstance(value, dict) else value
    return kept


def _check_weights(folder: Path) -> None:
    if (folder / WEIGHTS).is_file():
        return
    if not (folder / INDEX).is_file():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        if pickles:
            raise SlimlineError(
                f"its weights are the pickle {pickles[0]}, and loading a pickle can execute code from it: save the "
                "model again with save_pretrained(), which writes model.safetensors."
            )
        raise SlimlineError(f"it has no {WEIGHTS}: give a folder that save_pretrained() wrote.")
    places = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise SlimlineError(f"its {INDEX} has no weight_map: copy it again.")
    for name in sorted({str(place) for place in places.values()}):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise SlimlineError(f"its {INDEX} names {name!r}, which is no safetensors file in the folder.")
        if not (folder / name).is_file():
            raise SlimlineError(f"{name} is missing: copy every part of the weights.")


def _load(folder: Path, config: dict[str, Any], transformers: ModuleType) -> tuple[Any, list[str]]:
    """The model in float32, and the names of the weights in the folder that it has no use for."""
    model_class = _model_class(config, transformers)
    attention = "sdpa" if getattr(model_class, "_supports_sdpa", False) else "eager"
    try:
        settings = model_class.config_class.from_dict(config)
        _check_size(folder, model_class, settings)
        model, found = model_class.from_pretrained(
            str(folder),
            config=settings,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation=attention,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, by name
        )
    except SlimlineError:
        raise
    except Exception as error:  # transformers and its parts raise what they raise; told as one sentence
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise SlimlineError(f"transformers cannot load it as {model_class.__name__} ({reason}).") from error
    if found["mismatched_keys"]:
        name, stored, wanted = sorted(found["mismatched_keys"])[0]
        raise SlimlineError(
            f"its weight {name} has the shape {list(stored)} and its config.json asks for {list(wanted)}: they are of "
            "different models."
        )
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise SlimlineError(
            f"its weights lack {len(missing)} tensors of {model_class.__name__}, such as {missing[0]}: save the model "
            "again, as they would be random."
        )
    return model, sorted(found["unexpected_keys"])


def _check_size(folder: Path, model_class: Any, settings: Any) -> None:
    """Before any memory is taken: does the configuration ask for about as many numbers as the files hold?"""
    stored = 0
    for path in [folder / WEIGHTS] if (folder / WEIGHTS).is_file() else sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            stored += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    with torch.device("meta"):
        model = model_class(settings)
    wanted = sum(tensor.numel() for tensor in [*model.parameters(), *model.buffers()])
    if wanted > 2 * stored + BUFFERS:  # shared weights may be counted twice here
        raise SlimlineError(
            f"its config.json asks for {wanted:,} numbers and its weights hold {stored:,}: they are of different "
            "models."
        )


def _model_class(config: dict[str, Any], transformers: ModuleType) -> Any:
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else None
    if not isinstance(name, str):
        raise SlimlineError("its config.json names no architecture: load the model in a JOB.py.")
    try:
        found = getattr(transformers, name, None)
    except ImportError as error:
        raise SlimlineError(f"{name} needs a package that is not installed ({error}).") from error
    if not inspect.isclass(found) or not issubclass(found, transformers.PreTrainedModel):
        raise SlimlineError(
            f"its architecture {name!r} is no model of transformers {transformers.__version__}: load it in a JOB.py."
        )
    return found


def _tokenizer_names(folder: Path, transformers: ModuleType) -> list[str] | None:
    """What the tokenizer of a folder gives, by its settings alone; None without a tokenizer."""
    settings = _read_optional(folder / "tokenizer_config.json")
    names = settings.get("model_input_names")
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names
    found: Any = getattr(transformers, str(settings.get("tokenizer_class")), None)
    is_tokenizer = inspect.isclass(found) and issubclass(found, transformers.PreTrainedTokenizerBase)
    return list(found.model_input_names) if is_tokenizer else None


def _accepted(model: nn.Module) -> list[str]:
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in TARGETS]


def input_names(model: Any, tokenizer: list[str] | None = None) -> list[str]:
    """The inputs of a model, in the order of ``forward``: what its tokenizer gives, or the usual ones."""
    usual = [model.main_input_name]
    if usual == ["input_ids"]:
        pairs = getattr(model.config, "type_vocab_size", 0) > 1
        usual = tokenizer or ["input_ids", "attention_mask", *(["token_type_ids"] if pairs else [])]
    if getattr(model.config, "is_encoder_decoder", False):
        usual = [*usual, "decoder_input_ids"]
    return [name for name in _accepted(model) if name in usual]


def _chosen(model: Any, data: Mapping[str, Any]) -> dict[str, Tensor]:
    """The first samples of what the data has of a model's inputs, in the order of ``forward``."""
    names = [name for name in _accepted(model) if name in data]
    if not names:
        raise SlimlineError(
            f"{type(model).__name__} takes none of the arrays {sorted(data)}: name them as its tokenizer or processor "
            f"does, such as {model.main_input_name}."
        )
    tensors = {name: torch.as_tensor(data[name])[:EXAMPLES] for name in names}
    return {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}


def _in_float32(model: Any) -> Any:
    """The model, or a copy of it where it is on another device or in half precision."""
    tensors = [*model.parameters(), *model.buffers()]
    if getattr(model, "hf_quantizer", None) is not None:
        raise SlimlineError(f"The weights of {type(model).__name__} are quantised already: give it in floating point.")
    if any(tensor.is_meta for tensor in tensors):
        raise SlimlineError(f"{type(model).__name__} has no weights yet (device meta): load them first.")
    half = any(tensor.dtype in (torch.float16, torch.bfloat16, torch.float64) for tensor in tensors)
    if half or any(tensor.device.type != "cpu" for tensor in tensors):
        return copy.deepcopy(model).to("cpu", torch.float32)
    return model


def _traced(model: nn.Module, inputs: dict[str, Tensor]) -> Network:
    with _settings(model):
        return trace(model, inputs)


@contextlib.contextmanager
def _settings(model: nn.Module) -> Iterator[None]:
    """Outputs by name and without nested ones, and attention as plain operators, while a model is traced."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    names = ("_attn_implementation", *TRACED_WITH)
    before = [(config, name, getattr(config, name)) for config in configs for name in names if hasattr(config, name)]
    try:
        for config, name, value in before:
            attention = value if value in TRACEABLE_ATTENTION else "eager"
            setattr(config, name, TRACED_WITH.get(name, attention))
        yield
    finally:
        for config, name, value in before:
            setattr(config, name, value)
