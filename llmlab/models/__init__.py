"""One name, the same model on every engine: a folder for transformers and vLLM, GGUF files for llama.cpp.

>>> from llmlab import models
>>> model = models.get("smollm2-135m")       # doctest: +SKIP
>>> model.gguf("F16"), model.hf_dir           # doctest: +SKIP

Reading order: catalog (names), model (what is made from what), gguf_file and safetensors_file (formats), tensors (names
and row order), hf_to_gguf and gguf_to_hf, store (the cache), fit (does it fit), chat, lora.
"""

from llmlab.models import chat, lora
from llmlab.models.catalog import KnownModel, get, known
from llmlab.models.config import ModelConfig
from llmlab.models.fit import Fit, fits, kv_bytes_per_token
from llmlab.models.gguf_file import check_gguf
from llmlab.models.model import Model
from llmlab.models.quants import QUANTS

__all__ = [
    "QUANTS",
    "Fit",
    "KnownModel",
    "Model",
    "ModelConfig",
    "chat",
    "check_gguf",
    "fits",
    "get",
    "known",
    "kv_bytes_per_token",
    "lora",
]
