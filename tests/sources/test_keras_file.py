"""What a `.keras` file may hold: checked without Keras."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from slimline.errors import SlimlineError
from slimline.sources.keras_file import CONFIG, METADATA, WEIGHTS, check_keras_file


def layer(
    kind: str, module: str | None = "keras.layers", registered: str | None = None, **config: Any
) -> dict[str, Any]:
    return {"class_name": kind, "module": module, "registered_name": registered, "config": {"name": "x", **config}}


def model(*layers: Any, **more: Any) -> dict[str, Any]:
    return {**layer("Sequential", "keras", layers=list(layers)), **more}


def write(folder: Path, config: Any, members: dict[str, bytes] | None = None, compression: int = 0) -> Path:
    path = folder / "model.keras"
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {CONFIG: text, METADATA: b"{}", WEIGHTS: b"weights", **(members or {})}.items():
            archive.writestr(name, content)
    return path


DENSE = layer("Dense", kernel_initializer=layer("GlorotUniform", "keras.initializers"))
NESTED = model(layer("TimeDistributed", layer=layer("Lambda")))


@pytest.mark.parametrize(
    "config",
    [
        model(DENSE),
        model(layer("Functional", "keras.src.models.functional", registered="Functional", layers=[DENSE])),
        model(
            layer(
                "Dense",
                dtype=layer("DTypePolicy", "keras"),
                activation={"class_name": "function", "module": "builtins", "config": "silu"},
            )
        ),
        model(layer("Reshape", shape={"class_name": "__tuple__", "items": [1, 2]})),
        model(DENSE, compile_config={"loss": layer("MyLoss", "my.code", "my>MyLoss")}),  # training is not loaded
    ],
)
def test_a_model_of_keras_own_layers_is_let_in(config: dict[str, Any], tmp_path: Path) -> None:
    assert check_keras_file(write(tmp_path, config)) == config


@pytest.mark.parametrize(
    "config",
    [
        model(DENSE, layer("Lambda")),
        NESTED,
        model(layer("Dense", activation={"class_name": "__lambda__", "config": {"value": "code"}})),
        model(layer("TorchModuleWrapper")),
        model(layer("Dense", registered="keras>Lambda")),
    ],
)
def test_code_is_refused_unless_it_is_allowed(config: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path, config)
    with pytest.raises(SlimlineError, match=r"model\.keras holds code: .* allow it with\s+allow_code=True"):
        check_keras_file(path)
    assert check_keras_file(path, allow_code=True) == config


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (model(layer("Mine", "my.code")), "Mine of my.code"),
        (model(layer("Mine", None, "my>Mine")), "Mine of its author"),
        (model(layer("Popen", "subprocess")), "Popen of subprocess"),
        (model({"class_name": "function", "module": "keras.utils", "config": "get_file"}), "get_file of keras.utils"),
        (model({"class_name": "function", "module": "keras", "config": "utils.get_file"}), "utils.get_file of keras"),
        (model(layer("layers.Lambda", "keras")), "layers.Lambda of keras"),  # Keras would look this path up
        (model(layer("Dense", "keras.src")), "Dense of keras.src"),
        (model(layer("Dense", "keras.src.saving")), "Dense of keras.src.saving"),
        (model(layer("Dense", "kerasx.layers")), "Dense of kerasx.layers"),
    ],
)
@pytest.mark.parametrize("allow_code", [False, True])
def test_a_class_from_elsewhere_is_named(config: dict[str, Any], named: str, allow_code: bool, tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=f"needs the class {named}, which is not in the file: export"):
        check_keras_file(write(tmp_path, config), allow_code)


@pytest.mark.parametrize(
    ("members", "sentence"),
    [
        ({"assets/vocabulary.txt": b"a"}, r"holds 'assets/vocabulary.txt' beside its weights"),
        ({"../../etc/cron.d/x": b"a"}, r"holds '\.\./\.\./etc/cron\.d/x' beside its weights"),
        ({"code.py": b"a"}, r"holds 'code\.py' beside its weights"),
    ],
)
def test_only_the_expected_members_are_let_in(members: dict[str, bytes], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        check_keras_file(write(tmp_path, model(DENSE), members))


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, model(DENSE), {WEIGHTS: bytes(10_000_000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(SlimlineError, match=r"unpacks to 10,000,\d+ bytes from [\d,]+: it is refused as a"):
        check_keras_file(path)


def test_a_member_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, model(DENSE))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CONFIG, json.dumps(NESTED))  # one reader may take the first, another the last
    with pytest.raises(SlimlineError, match=r"has no config\.json, or has it twice"):
        check_keras_file(path)


@pytest.mark.parametrize(
    "content", [b"", b"no zip", b"PK\x05\x06" + bytes(18), b"\x89HDF\r\n\x1a\n old Keras file", b"PK\x03\x04 cut off"]
)
def test_what_is_no_zip_with_a_model_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(
        SlimlineError, match=r"model\.keras is not a (readable )?\.keras file.* save the model again\.$"
    ):
        check_keras_file(path)


@pytest.mark.parametrize("config", [b"{", b"[" * 200_000, b"\xff\xfe\xff", b"[1, 2]", b"7"])
def test_a_config_that_is_no_model_is_one_sentence(config: bytes, tmp_path: Path) -> None:
    with pytest.raises(SlimlineError, match=r"is not a (readable )?\.keras file.* save the model again\.$"):
        check_keras_file(write(tmp_path, config))


def test_bytes_that_were_changed_are_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, model(DENSE))
    content = bytearray(path.read_bytes())
    content[content.index(b"GlorotUniform")] ^= 1
    path.write_bytes(content)
    with pytest.raises(SlimlineError, match=r"Bad CRC-32 for file 'config\.json'"):
        check_keras_file(path)
