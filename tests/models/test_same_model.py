"""The embedded model on both sides: transformers on `hf_dir` and llama.cpp on `gguf("F32")` say the same."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llama_reference import quiet_llama_cpp
from nasty_strings import nasty_strings

from llmlab.models import Model, check_gguf
from llmlab.models.weights import read_gguf_tensor

pytestmark = pytest.mark.slow

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    if n <",
    "你好，世界！今天",
    "🚀 emoji 👨‍👩‍👧‍👦 and accents: éàü",
    "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "1234567890 + 9876543210 =",
]


@pytest.fixture(scope="module")
def hf_tokenizer(smollm2: Model) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2.hf_dir)


@pytest.fixture(scope="module")
def hf_model(smollm2: Model) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(smollm2.hf_dir, dtype=torch.float32)


def test_f32_logits_equal_transformers_to_a_hundredth(
    smollm2: Model, hf_tokenizer: Any, hf_model: Any, llama: Callable[..., Any]
) -> None:
    import torch

    file = llama(smollm2.gguf("F32"))
    for prompt in PROMPTS:
        token_ids = hf_tokenizer(prompt)["input_ids"]
        with torch.no_grad():
            expected = hf_model(torch.tensor([token_ids])).logits[0].numpy()
        difference = np.abs(file.logits(token_ids) - expected).max()
        assert difference < 1e-2, (prompt, difference)


def test_token_ids_equal_transformers_and_the_shipped_file_on_200_nasty_strings(
    smollm2: Model, hf_tokenizer: Any, llama: Callable[..., Any]
) -> None:
    texts = nasty_strings()
    assert len(set(texts)) == 200
    shipped, made = (llama(smollm2.gguf(quant), vocab_only=True) for quant in ("Q4_1", "F32"))
    for text in texts:
        expected = hf_tokenizer(text)["input_ids"]
        assert shipped.token_ids(text, add_special=True) == expected, repr(text)
        assert made.token_ids(text, add_special=True) == expected, repr(text)


def test_text_comes_back_from_the_rebuilt_tokenizer(hf_tokenizer: Any) -> None:
    # SmolLM2's vocabulary lacks 21 of the 256 bytes, among them some control characters: those are lost by design
    for text in [*PROMPTS, "    def f(x):\n\t\treturn x  # 4\n", "  a  b ", "e\u0301 \u202bمختلط\u202c", "it 's n't ."]:
        assert hf_tokenizer.decode(hf_tokenizer(text)["input_ids"]) == text, repr(text)


def test_dequantized_weights_are_those_that_llama_cpp_computes(smollm2: Model, tmp_path: Any) -> None:
    llama_cpp = quiet_llama_cpp()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = 0, True  # 0: all F32
    target = tmp_path / "by_llama_cpp.gguf"
    source = str(smollm2.gguf("Q4_1")).encode()
    assert llama_cpp.llama_model_quantize(source, str(target).encode(), ctypes.byref(params)) == 0
    ours, theirs = check_gguf(smollm2.gguf("F32")), check_gguf(target)
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name in ours.tensors:
        assert np.array_equal(read_gguf_tensor(ours, name), read_gguf_tensor(theirs, name)), name


def test_bf16_and_f16_files_hold_the_rounded_weights(smollm2: Model) -> None:
    import torch

    exact = check_gguf(smollm2.gguf("F32"))
    name = "blk.3.ffn_down.weight"
    for quant, torch_dtype in (("F16", torch.float16), ("BF16", torch.bfloat16)):
        header = check_gguf(smollm2.gguf(quant))
        assert header.tensors[name].type.name == quant
        rounded = torch.from_numpy(read_gguf_tensor(exact, name)).to(torch_dtype).float().numpy()
        assert np.array_equal(read_gguf_tensor(header, name), rounded)


def test_generation_stops_at_the_end_of_turn(smollm2: Model, hf_tokenizer: Any, hf_model: Any) -> None:
    assert hf_model.generation_config.eos_token_id == 2
    assert hf_tokenizer.convert_ids_to_tokens(2) == smollm2.eos_token == "<|im_end|>"
