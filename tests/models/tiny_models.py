"""Small random models of every family, saved the way transformers saves real ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CORPUS = [
    "The capital of France is Paris, and the capital of Germany is Berlin. It's 1234 km away, isn't it?",
    "def fibonacci(n):\n    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)\n",
    "Whatever you're doing, they've done it; we'll see what I'd do in 2024 or 31.12.1999.",
    "Die Straße führt über die Brücke. Où est le café? Привет, мир. 你好，世界。日本語のテキスト",
    "the the the and and of of to to in in is is that that it it was was for for on on are are with with",
] * 20
VOCAB_SIZE = 600
_CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def byte_level_tokenizer(pre: str, *, add_bos: bool = False, ignore_merges: bool = False) -> Any:
    """A byte-level BPE tokenizer trained on CORPUS that cuts text like `pre`."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    from llmlab.models.pre_tokenizers import CUTS

    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    cuts = {"type": "Sequence", "pretokenizers": CUTS[pre]}
    raw = json.loads(tokenizer.to_str()) | {"pre_tokenizer": cuts}
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    # ids past the padded end of the vocabulary stay free: the models have VOCAB_SIZE rows
    trainer = trainers.BpeTrainer(vocab_size=560, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|begin|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens(["<tool_call>"])
    if add_bos:
        bos = tokenizer.token_to_id("<|begin|>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", pair="<|begin|> $A <|begin|> $B:1", special_tokens=[("<|begin|>", bos)]
        )
    return tokenizer


def sentencepiece_tokenizer() -> Any:
    """A BPE tokenizer over characters with byte fallback, as Llama 2's tokenizer.json."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=590, special_tokens=specials, max_token_length=12)
    tokenizer.train_from_iterator(CORPUS, trainer)
    raw = json.loads(tokenizer.to_str())
    # only these three are found in text; a byte token written out as "<0x0A>" is six characters
    raw["added_tokens"] = [entry for entry in raw["added_tokens"] if entry["id"] < 3]
    tokenizer = Tokenizer.from_str(json.dumps(raw))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def save(folder: Path, tokenizer: Any, config: Any, *, dtype: str = "float32", shard_size: str = "5GB") -> Any:
    """Saves a random model of that config, biases and norms included, into `folder`; returns it in float32."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter) * 0.2
            parameter.copy_(parameter + noise if parameter.ndim == 1 else noise)
    model.to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size=shard_size)
    known = tokenizer.get_vocab()
    names = ("<s>", "</s>", "<unk>") if "<s>" in known else ("<|begin|>", "<|im_end|>", None)
    specials = {key: name for key, name in zip(("bos_token", "eos_token", "unk_token"), names, strict=True) if name}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)
    fast.chat_template = _CHATML
    fast.save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def llama_config(**changes: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**_sizes(changes))


def mistral_config(**changes: Any) -> Any:
    from transformers import MistralConfig

    return MistralConfig(**_sizes({"sliding_window": None, **changes}))


def qwen2_config(**changes: Any) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(**_sizes(changes))


def qwen3_config(**changes: Any) -> Any:
    from transformers import Qwen3Config

    return Qwen3Config(**_sizes({"head_dim": 48, **changes}))


def _sizes(changes: dict[str, Any]) -> dict[str, Any]:
    sizes = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
    }
    return sizes | changes
