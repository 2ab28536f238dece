"""One model under one name, as a folder for transformers and vLLM and as GGUF files for llama.cpp.

Either side is made from the other when it is first asked for, and kept in the cache. This file decides what is made
from what; how is in hf_to_gguf.py, gguf_to_hf.py and llama_quantize.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from llmlab.models import store, tokenizer_files
from llmlab.models.config import ModelConfig, family_of
from llmlab.models.gguf_file import GgufHeader, check_gguf
from llmlab.models.progress import progress_bar
from llmlab.models.quants import QUANTS, Quant, parse_quant
from llmlab.models.tensors import num_params


@dataclass(frozen=True)
class Model:
    """A model that was found. Nothing is converted or downloaded before `gguf`, `hf_dir` or `fingerprint` is asked for.

    >>> model = get("smollm2-135m")                          # doctest: +SKIP
    >>> model.gguf("Q8_0"), model.config.num_kv_heads         # doctest: +SKIP
    (PosixPath('.../smollm2-135m-Q8_0.gguf'), 3)
    """

    name: str
    # "embedded", "folder", "file" or "hub"
    where: str
    # the .gguf file or the folder that it comes from; of a Hub model, maybe without its weights yet
    path: Path
    config: ModelConfig
    # the quant of a .gguf source, None for a folder
    native_quant: str | None
    # changes whenever the source does: results in the cache belong to one key
    key: str
    # the source folder with its weights; a download, for a Hub model
    fetch: Callable[[], Path] = field(repr=False, compare=False)

    @property
    def load_name(self) -> str:
        """What `get` and `%llm load` take to find this model again: its name, or its path."""
        return self.name if self.where in ("embedded", "hub") else str(self.path)

    @property
    def num_params(self) -> int:
        """Number of weights, tied embeddings counted once."""
        return num_params(self.config)

    @property
    def default_quant(self) -> str:
        """What llama.cpp loads when nobody chose: the file as it is, or F16 of a folder."""
        return self.native_quant or "F16"

    @property
    def quants(self) -> tuple[str, ...]:
        """The quants whose GGUF file exists now."""
        return tuple(quant for quant in QUANTS if self.has_gguf(quant))

    def has_gguf(self, quant: str) -> bool:
        """True when `gguf(quant)` would return at once; makes nothing."""
        return self._gguf_path(quant.upper()).exists()

    def gguf(self, quant: str) -> Path:
        """The GGUF file of that quant, made and cached when it does not exist yet.

        Raises ModelError for an unknown quant, an architecture that is not converted, a broken source, a full disk.
        """
        if quant.upper() == self.native_quant:
            check_gguf(self.path)
            return self.path
        return self._made_gguf(parse_quant(quant))

    @property
    def hf_dir(self) -> Path:
        """The folder for transformers and vLLM, made (in float32) and cached when the source is a GGUF file.

        Raises ModelError as `gguf` does.
        """
        if not self._is_gguf:
            from llmlab.models.weights import HfWeights

            folder = self.fetch()
            HfWeights(folder, self.config)  # raises when a tensor is missing
            return folder
        family_of(self.config, self.path)

        def build(part: Path) -> None:
            from llmlab.models import gguf_to_hf

            part.mkdir()
            with progress_bar(f"{self.name} to safetensors", self.num_params) as progress:
                gguf_to_hf.convert(check_gguf(self.path), part, config=self.config, progress=progress)

        return store.made(self._cache / "hf", build, num_bytes=4 * self.num_params)

    @cached_property
    def fingerprint(self) -> str:
        """`sha256:...` of the source's weights, equal for files that hold the very same numbers; computed once.

        Of an architecture that is not converted, only files of the same format can be compared.
        """
        from llmlab.models.fingerprint import fingerprint
        from llmlab.models.weights import GgufWeights, HfWeights

        def build(part: Path) -> None:
            source = self.fetch()
            weights = GgufWeights(check_gguf(source), self.config) if self._is_gguf else HfWeights(source, self.config)
            with progress_bar(f"{self.name} fingerprint", self.num_params) as progress:
                part.write_text(fingerprint(weights, progress))

        return store.made(self._cache / "fingerprint.txt", build).read_text()

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template, None for a base model; `chat.render_chat` renders it."""
        return self._chat_format.template

    @property
    def bos_token(self) -> str:
        """The text of the BOS token, "" when the model has none."""
        return self._chat_format.bos_token

    @property
    def eos_token(self) -> str:
        """The text of the EOS token, "" when the model has none."""
        return self._chat_format.eos_token

    @cached_property
    def _chat_format(self) -> tokenizer_files.ChatFormat:
        if self._is_gguf:
            return tokenizer_files.gguf_chat_format(GgufHeader(self.path))
        return tokenizer_files.hf_chat_format(self.path)

    @property
    def _is_gguf(self) -> bool:
        return self.native_quant is not None

    @property
    def _cache(self) -> Path:
        return store.root() / "models" / f"{self.name.replace('/', '--')}-{self.key}"

    def _gguf_path(self, quant: str) -> Path:
        stem = self.name.replace("/", "--")
        return self.path if quant == self.native_quant else self._cache / f"{stem}-{quant}.gguf"

    def _made_gguf(self, quant: Quant) -> Path:
        build = self._write_float if quant.is_float else self._quantize
        num_bytes = int(self.num_params * quant.bits / 8)
        return store.made(self._gguf_path(quant.name), lambda part: build(quant, part), num_bytes=num_bytes)

    def _write_float(self, quant: Quant, part: Path) -> None:
        from llmlab.models import gguf_to_hf, hf_to_gguf

        with progress_bar(f"{self.name} to {quant.name}", self.num_params) as progress:
            if self._is_gguf:
                gguf_to_hf.dequantize(check_gguf(self.path), part, quant=quant.name, progress=progress)
            else:
                folder = self.fetch()
                hf_to_gguf.convert(
                    folder, part, config=self.config, name=self.name, quant=quant.name, progress=progress
                )

    def _quantize(self, quant: Quant, part: Path) -> None:
        from llmlab.models.llama_quantize import quantize

        source = self.gguf(self._lossless.name)
        num_tensors = len(GgufHeader(source).tensors)
        with progress_bar(f"{self.name} to {quant.name}", num_tensors, unit="tensors") as progress:
            quantize(source, part, quant, progress)

    @property
    def _lossless(self) -> Quant:
        """The smallest float type that keeps every weight of the source."""
        if self.native_quant:
            native = QUANTS.get(self.native_quant)
            return native if native and native.is_float else QUANTS["F32"]
        from llmlab.models.weights import stored_tensors

        dtypes = {tensor.dtype for tensor in stored_tensors(self.fetch()).values()}
        return QUANTS[dtypes.pop()] if len(dtypes) == 1 else QUANTS["F32"]
