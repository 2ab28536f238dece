"""Random models of every family that llmlab converts, through llama.cpp and transformers, in both directions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from nasty_strings import nasty_strings

from llmlab import models
from llmlab.errors import ModelError
from llmlab.models.weights import read_gguf_tensor

pytestmark = pytest.mark.slow

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN_ROPE = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR_ROPE = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}

FAMILIES: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "llama": (tiny_models.llama_config, {}, "smollm"),
    "llama tied": (tiny_models.llama_config, {"tie_word_embeddings": True}, "gpt-2"),
    "llama with biases": (tiny_models.llama_config, {"attention_bias": True, "mlp_bias": True}, "llama-bpe"),
    "llama 3 rope": (tiny_models.llama_config, {"rope_parameters": LLAMA3_ROPE}, "llama-bpe"),
    "llama linear rope": (tiny_models.llama_config, {"rope_parameters": LINEAR_ROPE}, "smollm"),
    "mistral": (tiny_models.mistral_config, {"rope_theta": 1e6}, "tekken"),
    "mistral wide heads": (tiny_models.mistral_config, {"head_dim": 64}, "tekken"),
    "qwen2": (tiny_models.qwen2_config, {}, "qwen2"),
    "qwen2 tied": (tiny_models.qwen2_config, {"tie_word_embeddings": True}, "qwen2"),
    "qwen2 yarn": (tiny_models.qwen2_config, {"rope_parameters": YARN_ROPE}, "qwen2"),
    "qwen3": (tiny_models.qwen3_config, {}, "qwen2"),
    "qwen3 tied": (tiny_models.qwen3_config, {"tie_word_embeddings": True}, "qwen2"),
}
TOKEN_IDS = [5, 17, 301, 42, 42, 7, 555, 0, 123, 88, 9, 400] * 10


def logits_of(model: Any) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor([TOKEN_IDS])).logits[0].numpy()


def hf_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    make, changes, pre = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param.replace(" ", "-"))
    return folder, tiny_models.save(folder, tiny_models.byte_level_tokenizer(pre), make(**changes))


def test_logits_in_llama_cpp_equal_transformers(saved: tuple[Path, Any], llama: Callable[..., Any]) -> None:
    folder, model = saved
    expected = logits_of(model)
    assert np.abs(expected).max() > 1  # else the comparison would prove little
    difference = np.abs(llama(models.get(folder).gguf("F32")).logits(TOKEN_IDS) - expected).max()
    assert difference < 1e-3


def test_folder_to_gguf_to_folder_gives_the_same_model(saved: tuple[Path, Any]) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder, model = saved
    first = models.get(folder)
    back = models.get(first.gguf("F32"))
    assert models.get(back.hf_dir).config == first.config
    assert back.fingerprint == first.fingerprint
    again = AutoModelForCausalLM.from_pretrained(back.hf_dir, dtype=torch.float32)
    weights = model.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in again.state_dict().items())
    assert np.abs(logits_of(again) - logits_of(model)).max() < 1e-5


def test_gguf_to_folder_to_gguf_gives_the_same_file(saved: tuple[Path, Any]) -> None:
    first = models.check_gguf(models.get(saved[0]).gguf("F32"))
    again = models.check_gguf(models.get(models.get(first.path).hf_dir).gguf("F32"))
    assert again.tensors.keys() == first.tensors.keys()
    for name in first.tensors:
        assert np.array_equal(read_gguf_tensor(again, name), read_gguf_tensor(first, name)), name
    assert {key: again[key] for key in again.keys if key != "general.name"} == {
        key: first[key] for key in first.keys if key != "general.name"
    }


def test_token_ids_are_equal_everywhere(saved: tuple[Path, Any], llama: Callable[..., Any]) -> None:
    folder, _ = saved
    original = hf_tokenizer(folder)
    made = models.get(folder).gguf("F32")
    rebuilt = hf_tokenizer(models.get(made).hf_dir)
    file = llama(made, vocab_only=True)
    compared = 0
    for text in nasty_strings():
        expected = original(text)["input_ids"]
        assert rebuilt(text)["input_ids"] == expected, repr(text)
        # llama.cpp does not normalize, Qwen's tokenizer does
        normalizer = original.backend_tokenizer.normalizer
        if normalizer is None or normalizer.normalize_str(text) == text:
            assert file.token_ids(text, add_special=True) == expected, repr(text)
            compared += 1
    assert compared > 150


def test_quantized_from_folder_runs_in_llama_cpp(saved: tuple[Path, Any], llama: Callable[..., Any]) -> None:
    folder, model = saved
    expected = logits_of(model)
    difference = np.abs(llama(models.get(folder).gguf("Q8_0")).logits(TOKEN_IDS) - expected)
    assert 0 < difference.mean() < 0.1 * expected.std()


def test_bos_is_added_where_the_tokenizer_adds_it(tmp_path: Path, llama: Callable[..., Any]) -> None:
    tokenizer = tiny_models.byte_level_tokenizer("llama-bpe", add_bos=True, ignore_merges=True)
    tiny_models.save(tmp_path, tokenizer, tiny_models.llama_config())
    made = models.get(tmp_path).gguf("F32")
    bos = tokenizer.token_to_id("<|begin|>")
    ids = llama(made, vocab_only=True).token_ids("Paris", add_special=True)
    assert ids[0] == bos
    rebuilt = hf_tokenizer(models.get(made).hf_dir)
    assert rebuilt("Paris")["input_ids"] == ids
    assert rebuilt.bos_token_id == bos


def test_a_word_that_is_a_token_is_taken_whole_where_the_tokenizer_ignores_merges(
    tmp_path: Path, llama: Callable[..., Any]
) -> None:
    from tokenizers import Tokenizer

    raw = json.loads(tiny_models.byte_level_tokenizer("llama-bpe", ignore_merges=True).to_str())
    # no merge leads to " the" any more
    raw["model"]["merges"] = [merge for merge in raw["model"]["merges"] if "".join(merge) != "Ġthe"]
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    tiny_models.save(tmp_path, tokenizer, tiny_models.llama_config())
    made = models.get(tmp_path).gguf("F32")
    expected = [raw["model"]["vocab"]["Ġthe"]]
    assert tokenizer.encode(" the").ids == expected
    assert llama(made, vocab_only=True).token_ids(" the") == expected
    assert hf_tokenizer(models.get(made).hf_dir)(" the")["input_ids"] == expected


def test_sentencepiece_token_ids_are_equal_everywhere(tmp_path: Path, llama: Callable[..., Any]) -> None:
    tokenizer = tiny_models.sentencepiece_tokenizer()
    tiny_models.save(tmp_path, tokenizer, tiny_models.llama_config())
    made = models.get(tmp_path).gguf("F32")
    file = llama(made, vocab_only=True)
    rebuilt = hf_tokenizer(models.get(made).hf_dir)
    for text in nasty_strings():
        expected = tokenizer.encode(text).ids
        assert file.token_ids(text, add_special=True) == expected, repr(text)
        assert rebuilt(text)["input_ids"] == expected, repr(text)


def test_sharded_bfloat16_folder_equals_transformers(tmp_path: Path, llama: Callable[..., Any]) -> None:
    model = tiny_models.save(
        tmp_path,
        tiny_models.byte_level_tokenizer("smollm"),
        tiny_models.llama_config(),
        dtype="bfloat16",
        shard_size="300KB",
    )
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    store = models.get(tmp_path)
    assert np.abs(llama(store.gguf("F32")).logits(TOKEN_IDS) - logits_of(model)).max() < 1e-3
    # BF16 keeps all of it: quantizing starts from there
    assert models.get(store.gguf("BF16")).fingerprint == store.fingerprint
    store.gguf("Q4_0")
    assert set(store.quants) == {"F32", "BF16", "Q4_0"}


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    tiny_models.save(
        tmp_path, tiny_models.byte_level_tokenizer("smollm"), tiny_models.llama_config(), shard_size="300KB"
    )
    lost = sorted(tmp_path.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(ModelError, match=lost.name):
        _ = models.get(tmp_path).hf_dir


def test_sliding_window_limits_the_context(tmp_path: Path) -> None:
    config = tiny_models.mistral_config(sliding_window=64)
    tiny_models.save(tmp_path, tiny_models.byte_level_tokenizer("tekken"), config)
    model = models.get(tmp_path)
    assert model.config.max_model_len == 64
    assert models.check_gguf(model.gguf("F32"))["llama.context_length"] == 64


def test_rope_scaling_that_llama_cpp_lacks_is_refused(tmp_path: Path) -> None:
    config = tiny_models.llama_config(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    tiny_models.save(tmp_path, tiny_models.byte_level_tokenizer("smollm"), config)
    with pytest.raises(ModelError, match=r"Rope scaling 'dynamic' is not converted\. Known: linear, llama3, yarn"):
        models.get(tmp_path).gguf("F32")


def test_another_architecture_says_where_to_get_its_gguf(tmp_path: Path) -> None:
    config = {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "vocab_size": 100,
        "max_position_embeddings": 512,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = models.get(tmp_path)
    assert model.config.family == "Gemma3ForCausalLM"
    with pytest.raises(ModelError, match=r"llmlab converts llama, qwen2, qwen3.*search the Hub for .* GGUF"):
        model.gguf("F16")
    assert model.quants == ()


def test_unknown_pre_tokenizer_is_refused_not_guessed(tmp_path: Path) -> None:
    tiny_models.save(tmp_path, tiny_models.byte_level_tokenizer("smollm"), tiny_models.llama_config())
    path = tmp_path / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0] = {"type": "Whitespace"}
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match=r"cuts text by \['Whitespace', 'ByteLevel'\]"):
        models.get(tmp_path).gguf("F32")
