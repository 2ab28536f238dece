"""Every broken input is a ModelError that names the file and what to do; nothing broken reaches llama.cpp."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from llmlab import models
from llmlab.errors import ModelError
from llmlab.models.gguf_writer import write_gguf
from llmlab.models.safetensors_file import read_table


@pytest.fixture
def tiny_folder(tiny_gguf: Path, tmp_path: Path, own_cache: Path) -> Path:
    """The same model as a folder."""
    return Path(shutil.copytree(models.get(tiny_gguf).hf_dir, tmp_path / "folder"))


def use(path: Path) -> object:
    """Everything that reads a model."""
    model = models.get(path)
    return model.chat_template, model.fingerprint, model.gguf("F16"), model.hf_dir


def test_the_tiny_model_is_whole(tiny_gguf: Path, tiny_folder: Path) -> None:
    assert use(tiny_gguf)
    assert use(tiny_folder)


def test_a_file_cut_anywhere_is_refused(tiny_gguf: Path) -> None:
    whole = tiny_gguf.read_bytes()
    assert models.check_gguf(tiny_gguf)
    for size in (*range(0, len(whole), 7), len(whole) - 1):
        tiny_gguf.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"tiny\.gguf"):
            models.check_gguf(tiny_gguf)


def test_the_embedded_model_without_its_last_byte_is_refused_in_50_ms(smollm2: models.Model, tmp_path: Path) -> None:
    copy = tmp_path / "cut.gguf"
    shutil.copy(smollm2.path, copy)
    times = []
    for _ in range(5):
        start = time.process_time()
        models.check_gguf(copy)
        times.append(time.process_time() - start)
    assert min(times) < 0.05
    with copy.open("r+b") as file:
        file.truncate(copy.stat().st_size - 1)
    with pytest.raises(
        ModelError, match=r"cut\.gguf is cut short: 98,362,431 bytes, but tensor .* ends at byte 98,362,432"
    ):
        models.get(copy)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"GG", "is no GGUF file"),
        (b"PK\x03\x04 a zip file", r"starts with b'PK\\x03\\x04', expected b'GGUF'"),
        (b"GGUF\x01\x00\x00\x00" + bytes(16), "GGUF version 1"),
        (b"GGUF\x00\x00\x00\x03" + bytes(16), "GGUF version 50331648"),  # big endian
        (b"GGUF\x03\x00\x00\x00" + bytes(16), "names no architecture"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, "is damaged"),
    ],
)
def test_what_is_no_gguf_file_says_so(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "some.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=complaint):
        models.get(path)


def raises_nothing_else(read: Callable[[], object], file: str) -> bool:
    """True when `read` refused with a ModelError that names the file; any other exception fails the test."""
    try:
        read()
    except ModelError as error:
        return file in str(error) or pytest.fail(f"does not name {file}: {error}")
    return False


@pytest.mark.slow
def test_a_thousand_damaged_headers_never_crash(tiny_gguf: Path, own_cache: Path) -> None:
    whole = tiny_gguf.read_bytes()
    header_bytes = len(whole) - 1500
    draw = random.Random(1)
    refused = 0
    for _ in range(1000):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(header_bytes)] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        tiny_gguf.write_bytes(damaged)
        refused += raises_nothing_else(lambda: models.get(tiny_gguf), "tiny.gguf")
    assert 100 < refused < 1000


def test_a_missing_part_of_a_split_model_is_named(tiny_gguf: Path, tmp_path: Path) -> None:
    first = tmp_path / "model-00001-of-00002.gguf"
    write_gguf(
        first,
        "llama",
        metadata={"split.count": 2},
        shapes={"output_norm.weight": (8,)},
        quant="F32",
        read=lambda name: np.ones(8, np.float32),
    )
    with pytest.raises(ModelError, match=r"Cannot read .*model-00002-of-00002\.gguf"):
        models.check_gguf(first)


def replace_json(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "[" * 100_000, '{"a": '])
def test_broken_json_is_named(tiny_folder: Path, name: str, content: str) -> None:
    (tiny_folder / name).write_text(content)
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        use(tiny_folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", None),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", -1),
        ("num_hidden_layers", 10**9),
        ("hidden_size", "wide"),
        ("hidden_size", [8]),
        ("num_attention_heads", 0),
        ("vocab_size", 1e400),
        ("rope_scaling", "llama3"),
        ("architectures", 5),
        ("max_position_embeddings", {}),
    ],
)
def test_a_config_with_a_bad_field_is_refused(tiny_folder: Path, field: str, value: object) -> None:
    replace_json(tiny_folder / "config.json", lambda config: config.update({field: value}))
    with pytest.raises(ModelError, match=r"config\.json"):
        models.get(tiny_folder)


def test_a_config_without_a_needed_field_names_it(tiny_folder: Path) -> None:
    replace_json(tiny_folder / "config.json", lambda config: config.pop("hidden_size"))
    with pytest.raises(ModelError, match=r"config\.json lacks the field 'hidden_size'"):
        models.get(tiny_folder)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty has no config\.json\. Give a model folder"):
        models.get(tmp_path / "empty")


def test_a_folder_without_tokenizer_is_refused(tiny_folder: Path) -> None:
    (tiny_folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"has no tokenizer\.json\. Make it with AutoTokenizer"):
        models.get(tiny_folder).gguf("F32")


def test_pickled_weights_are_not_opened(tiny_folder: Path) -> None:
    (tiny_folder / "model.safetensors").rename(tiny_folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"has no \*\.safetensors.*can run code"):
        use(tiny_folder)


def test_safetensors_cut_anywhere_are_refused(tiny_folder: Path) -> None:
    path = tiny_folder / "model.safetensors"
    whole = path.read_bytes()
    assert len(read_table(path)) == 11
    for size in (*range(0, len(whole), 7), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"model\.safetensors is damaged"):
            read_table(path)


def test_damaged_safetensors_headers_never_crash(tiny_folder: Path) -> None:
    path = tiny_folder / "model.safetensors"
    whole = path.read_bytes()
    draw = random.Random(2)
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(whole) - 1500)] = draw.randrange(256)
        path.write_bytes(damaged)
        raises_nothing_else(lambda: read_table(path), "model.safetensors")


def test_quantized_safetensors_are_refused_by_their_dtype(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ModelError, match=r"tensor 'w' has dtype F8_E4M3"):
        read_table(tmp_path / "w.safetensors")


def rewrite_weights(folder: Path, change: Callable[[dict[str, tuple[int, ...]]], object]) -> None:
    from llmlab.models.safetensors_file import write_float32

    path = folder / "model.safetensors"
    shapes = {name: tensor.shape for name, tensor in read_table(path).items()}
    change(shapes)
    write_float32(path, shapes, lambda name: np.ones(shapes[name], np.float32))


def test_a_missing_tensor_is_named(tiny_folder: Path) -> None:
    rewrite_weights(tiny_folder, lambda shapes: shapes.pop("model.norm.weight"))
    with pytest.raises(ModelError, match=r"folder lacks 1 of 11 tensors, first 'model\.norm\.weight'"):
        _ = models.get(tiny_folder).hf_dir


def test_weights_of_another_model_are_refused(tiny_folder: Path) -> None:
    rewrite_weights(tiny_folder, lambda shapes: shapes.update({"model.norm.weight": (16,)}))
    with pytest.raises(ModelError, match=r"'model\.norm\.weight' has shape \(16,\), the config says \(8,\)"):
        models.get(tiny_folder).gguf("F32")


def test_an_unknown_tensor_is_refused(tiny_folder: Path) -> None:
    rewrite_weights(tiny_folder, lambda shapes: shapes.update({"model.layers.0.mlp.experts.0.weight": (8,)}))
    with pytest.raises(ModelError, match="a mixture of experts"):
        models.get(tiny_folder).gguf("F32")


def test_a_tokenizer_of_another_model_is_refused(tiny_folder: Path) -> None:
    replace_json(tiny_folder / "tokenizer.json", lambda raw: raw["model"]["vocab"].update({"zz": 4000}))  # type: ignore[index]
    with pytest.raises(ModelError, match=r"token 'zz' with id 4000, the model has 8 rows"):
        models.get(tiny_folder).gguf("F32")


def test_weights_beyond_f16_are_refused_not_made_infinite(tiny_folder: Path) -> None:
    from llmlab.models.safetensors_file import write_float32

    path = tiny_folder / "model.safetensors"
    shapes = {name: tensor.shape for name, tensor in read_table(path).items()}
    write_float32(path, shapes, lambda name: np.full(shapes[name], 1e5, np.float32))
    with pytest.raises(ModelError, match=r"above 65504, the largest F16\. Use BF16 or F32"):
        models.get(tiny_folder).gguf("F16")
    assert models.get(tiny_folder).gguf("BF16")


def test_weights_without_their_folder_are_refused(tiny_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"holds weights only\. Give its folder"):
        models.get(tiny_folder / "model.safetensors")
