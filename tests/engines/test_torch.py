"""The torch engine: equal to transformers, equal to itself in every batch, and sound traces."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from llmlab import models
from llmlab.engines.torch_attention import Span, make_batch
from llmlab.engines.torch_graphs import DecodeGraphs, _Graph
from llmlab.errors import EngineError, ModelError, RequestError
from llmlab.trace import Step, Trace
from tests.engines.serving import request, serve, token_ids
from tests.engines.torch_support import broken_rules, embedded, engine
from tests.models import tiny_models
from tests.models.adapters import save_adapter

LLAMA3_ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 10000.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
FAMILIES = {
    "llama": tiny_models.llama_config(),
    "llama with tied output and biases": tiny_models.llama_config(
        tie_word_embeddings=True, attention_bias=True, mlp_bias=True
    ),
    "llama 3 rope": tiny_models.llama_config(rope_parameters=LLAMA3_ROPE),
    "qwen2": tiny_models.qwen2_config(),
    "qwen3": tiny_models.qwen3_config(),
}
TEXT = [5 + 7 * i % 500 for i in range(60)]
ROOM = {"kv_tokens": 512, "max_num_seqs": 8, "token_budget": 32, "block_size": 8}


@pytest.fixture(scope="module")
def roomy(tiny: Path):
    """For one request at a time, that finds nothing of another."""
    return engine(tiny, options={"prefix_caching": False}, kv_tokens=512, token_budget=256, block_size=16)


@pytest.fixture(scope="module")
def on(tiny: Path):
    loaded = engine(tiny, **ROOM)
    yield loaded
    assert loaded.pool.num_free_blocks == loaded.pool.num_blocks


def prompts(number: int, seed: int = 0) -> list[list[int]]:
    """Every third begins with the same 20 tokens."""
    rng = random.Random(seed)
    shared = [rng.randrange(5, 500) for _ in range(20)]
    return [
        (shared if i % 3 == 0 else []) + [rng.randrange(5, 500) for _ in range(rng.randint(1, 30))]
        for i in range(number)
    ]


def alone(roomy: Any, asked: list[list[int]], **sampling: Any) -> list[list[int]]:
    return [token_ids(serve(roomy, [request(roomy, "r", p, **sampling)]), "r") for p in asked]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family: str, tmp_path: Path):
    reference = tiny_models.save(tmp_path, tiny_models.byte_level_tokenizer("smollm"), FAMILIES[family])
    with torch.no_grad():
        expected = reference(torch.tensor([TEXT])).logits[0].numpy()
    apart = np.abs(engine(tmp_path).logits(TEXT) - expected).max()
    assert apart < 1e-3 * max(1.0, float(np.abs(expected).max()))


def test_16_requests_with_preemption_prefix_hits_and_chunks_answer_as_each_alone(tiny: Path, roomy):
    asked = prompts(16)
    tight = engine(tiny, kv_tokens=160, max_num_seqs=8, token_budget=16, block_size=4)
    together = serve(tight, [request(tight, f"r{i}", p, max_tokens=30, ignore_eos=True) for i, p in enumerate(asked)])
    assert broken_rules(together) == []
    steps = together.step_records
    assert all(isinstance(step, Step) for step in steps)
    assert sum(len(step.preempted) for step in steps) > 2 and sum(len(step.prefix_hits) for step in steps) > 2
    assert any(row.phase == "prefill" and row.num_computed_tokens for step in steps for row in step.scheduled)
    for i, expected in enumerate(alone(roomy, asked, max_tokens=30, ignore_eos=True)):
        assert token_ids(together, f"r{i}") == expected


def test_sampled_answers_do_not_depend_on_the_batch(on, roomy):
    how = dict(temperature=0.9, top_p=0.95, top_k=50, min_p=0.01, seed=7, max_tokens=12, ignore_eos=True)
    asked = prompts(6, seed=1)
    together = serve(on, [request(on, f"r{i}", p, **how) for i, p in enumerate(asked)])
    assert [token_ids(together, f"r{i}") for i in range(6)] == alone(roomy, asked, **how)


def test_the_cache_is_allocated_once(on):
    address, num_bytes = on.kv.kv.data_ptr(), on.memory_bytes()["kv_cache"]
    serve(on, [request(on, f"r{i}", p) for i, p in enumerate(prompts(12, seed=2))])
    assert (on.kv.kv.data_ptr(), on.memory_bytes()["kv_cache"]) == (address, num_bytes)
    assert (
        num_bytes == 64 * 8 * 2 * 3 * 2 * 32 * 4
    )  # blocks, tokens, keys and values, layers, KV heads, head_dim, float32
    assert on.header.kv_cache_bytes == num_bytes


def test_logprobs_are_those_of_the_logits(on):
    trace = serve(on, [request(on, "r", TEXT, max_tokens=2, logprobs=5, temperature=0.7)])
    row = torch.log_softmax(torch.tensor(on.logits(TEXT)[-1]), -1)
    token = next(token for step in trace.step_records for token in step.tokens)
    assert token.logprob == pytest.approx(float(row[token.token_id]), abs=1e-4)
    assert [i for i, _, _ in token.top] == row.topk(5).indices.tolist()


def test_an_interrupted_forward_pass_is_repeated_with_the_same_answer(tiny: Path, roomy):
    (want,) = alone(roomy, [TEXT], max_tokens=6)
    on = engine(tiny, **ROOM)  # its trace tells of the whole cache
    asked = request(on, "broken", TEXT, max_tokens=6)
    on.add_request(asked)
    on.interrupt()
    steps = []
    while on.has_unfinished_requests():
        steps.append(on.step())
    assert not steps[0].scheduled and steps[0].kv.num_free == on.pool.num_blocks
    trace = Trace(on.header, (asked,), tuple(steps))
    assert token_ids(trace, "broken") == want and broken_rules(trace) == []


def test_an_abort_frees_its_blocks_and_is_reported_once(on):
    for name in ("gone", "stays"):
        on.add_request(request(on, name, TEXT[:9], max_tokens=8, ignore_eos=True))
    on.step()
    on.abort_request("gone")
    on.abort_request("gone")
    finished = []
    while on.has_unfinished_requests():
        finished.append(on.step().finished)
    assert [f for f in finished if f] == [{"gone": "abort"}, {"stays": "length"}]


# ---- drafts


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_drafts_change_the_number_of_steps_and_nothing_else(tiny: Path, roomy, temperature: float):
    how = dict(max_tokens=24, ignore_eos=True, temperature=temperature, seed=3)
    asked = prompts(5, seed=4)
    drafting = engine(tiny, options={"draft": str(tiny), "num_draft_tokens": 3}, **ROOM)
    together = serve(drafting, [request(drafting, f"r{i}", p, **how) for i, p in enumerate(asked)])
    assert broken_rules(together) == []
    assert [token_ids(together, f"r{i}") for i in range(5)] == alone(roomy, asked, **how)
    drafted = [row for step in together.step_records for row in step.scheduled if row.num_draft_tokens]
    assert drafted and drafting.pool.num_free_blocks == drafting.pool.num_blocks
    if not temperature:  # it drafts for itself: all are kept
        assert len(together.step_records) < 12


def test_a_bad_draft_is_rejected_and_leaves_no_trace_in_the_answer(tiny: Path, roomy, tmp_path: Path):
    other = tiny_models.llama_config(num_hidden_layers=1, hidden_size=64, num_attention_heads=2, num_key_value_heads=1)
    tiny_models.save(tmp_path, tiny_models.byte_level_tokenizer("smollm"), other)
    drafting = engine(tiny, options={"draft": str(tmp_path)}, **{**ROOM, "kv_tokens": 128})
    asked = prompts(8, seed=5)
    together = serve(drafting, [request(drafting, f"r{i}", p, max_tokens=20) for i, p in enumerate(asked)])
    assert broken_rules(together) == []
    assert [token_ids(together, f"r{i}") for i in range(8)] == alone(roomy, asked, max_tokens=20)


def test_a_draft_with_another_vocabulary_is_refused(tiny: Path):
    with pytest.raises(EngineError, match="a draft must have the same vocabulary"):
        engine(tiny, options={"draft": "smollm2-135m"})


# ---- adapters


def test_each_request_has_its_own_adapter_and_shares_no_kv_across_them(tiny: Path, tmp_path: Path):
    every = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    strong = dict(scale=0.2, alpha=8)
    one = save_adapter(tmp_path / "a", tiny, seed=0, **strong)
    paths = [None, one, save_adapter(tmp_path / "b", tiny, seed=1, names=every, **strong)]
    on = engine(tiny, **ROOM)
    asked = [request(on, f"r{i}", TEXT[:30], max_tokens=10, **({"lora": p} if p else {})) for i, p in enumerate(paths)]
    together = serve(on, asked)
    assert broken_rules(together) == [] and not any(step.prefix_hits for step in together.step_records)
    for i, path in enumerate(paths):
        peft = pytest.importorskip("safetensors.torch").load_file(f"{path}/adapter_model.safetensors") if path else {}
        reference = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32).eval()
        state = reference.state_dict()
        for name in {key.split(".lora_")[0] for key in peft}:
            change = 2.0 * peft[f"{name}.lora_B.weight"] @ peft[f"{name}.lora_A.weight"]
            state[name.removeprefix("base_model.model.") + ".weight"] += change
        wanted = reference.generate(torch.tensor([TEXT[:30]]), max_new_tokens=10, do_sample=False)[0, 30:].tolist()
        assert token_ids(together, f"r{i}") == wanted[: len(token_ids(together, f"r{i}"))]
    assert len({tuple(token_ids(together, f"r{i}")) for i in range(3)}) == 3


def test_an_adapter_of_another_model_is_refused(on, tmp_path: Path):
    path = save_adapter(tmp_path / "x", models.get("smollm2-135m").hf_dir, scale=0.2)
    with pytest.raises(ModelError, match="belongs to another model"):
        on.add_request(request(on, "r", [5], lora=path))


# ---- what a lesson looks at


def test_attention_weights_hidden_states_and_the_lens_fit_the_logits(on):
    found = on.inside(TEXT[:12], layers=[0, 2])
    assert set(found["attention"]) == {0, 2} and found["attention"][2].shape == (4, 12, 12)
    weights = found["attention"][2]
    assert np.allclose(weights.sum(-1), 1, atol=1e-5) and not np.triu(weights, 1).any()
    assert found["hidden"].shape == (4, 12, 128)
    last = [best[0][0] for best in found["lens"][-1]]
    assert last == found["logits"].argmax(-1).tolist() and len(found["lens"]) == 4


def test_a_probe_keeps_what_each_step_computes(on):
    on.pool.clear()
    on.begin_probe([1])
    trace = serve(on, [request(on, f"r{i}", TEXT[: 10 + i], max_tokens=3) for i in range(2)])
    steps = on.end_probe()
    assert len(steps) == len(trace.step_records)
    assert steps[0]["r1"]["attention"][1].shape == (4, 11, 11) and steps[0]["r1"]["hidden"].shape == (4, 11, 128)
    assert steps[1]["r0"]["attention"][1].shape == (4, 1, 11)
    expected = on.inside(TEXT[:11])["attention"][1]
    assert np.allclose(steps[0]["r1"]["attention"][1], expected, atol=1e-5)


def test_a_step_tells_its_work_and_its_phases(on):
    on.pool.clear()
    trace = serve(on, [request(on, "r", TEXT[:10], max_tokens=2, ignore_eos=True)])
    first, second = (step.extra for step in trace.step_records[:2])
    layer_weights = 3 * (128 * 128 * 2 + 128 * 64 * 2 + 3 * 128 * 192)
    attention = 4 * 3 * 4 * 32
    assert first["flops"] == 2 * (layer_weights * 10 + tiny_models.VOCAB_SIZE * 128) + attention * 55
    assert second["flops"] == 2 * (layer_weights + tiny_models.VOCAB_SIZE * 128) + attention * 11
    assert second["bytes"] - on.memory_bytes()["weights"] == 12 * 2 * 3 * 2 * 32 * 4
    assert {"embedding", "qkv", "attention", "mlp", "output"} == set(first["phases_s"])


# ---- CUDA graphs: all of them but the recording, which needs a GPU


def test_a_padded_decode_gives_the_hidden_states_of_the_plain_one(on):
    from llmlab.engines.torch_hooks import own_kv

    with torch.inference_mode():
        kv, batch = own_kv(on.model, TEXT[:30], 8)
        on.model.forward(batch, kv)
        graphs = DecodeGraphs(on.model, kv, max_num_seqs=8, max_model_len=32)
        for places in ((7, 20, 29), (5, 29, 3, 11, 12), (9,), (29, 7)):  # rows and tables are used again
            spans = [Span([TEXT[n]], n, range(n // 8 + 1)) for n in places]
            batch = make_batch(spans, 8, on.model.device)
            assert graphs.fits(batch)
            key = graphs._fill(batch)
            plain, padded = on.model.forward(batch, kv), graphs._forward(*key)[: len(places)]
            assert torch.allclose(plain, padded, atol=1e-5)
            assert key == (
                1 << (len(places) - 1).bit_length() if len(places) < 5 else 8,
                1 << (max(places) // 8).bit_length(),
            )


class EmulatedGraphs(DecodeGraphs):
    """Replays by computing again from the tensors that graphs read, into the one that they write."""

    def _record(self, num_rows: int, num_blocks: int) -> _Graph:
        hidden = self._forward(num_rows, num_blocks).clone()
        replay = SimpleNamespace(replay=lambda: hidden.copy_(self._forward(num_rows, num_blocks)))
        return _Graph(replay, hidden)


def test_an_engine_whose_decodes_run_in_graphs_answers_as_one_without(tiny: Path, roomy):
    on = engine(tiny, kv_tokens=160, max_num_seqs=8, token_budget=16, block_size=4)
    on._graphs = graphs = EmulatedGraphs(on.model, on.kv, on.room.max_num_seqs, on.room.max_model_len)
    asked = prompts(12, seed=6)
    together = serve(on, [request(on, f"r{i}", p, max_tokens=20, ignore_eos=True) for i, p in enumerate(asked)])
    assert broken_rules(together) == [] and any(step.preempted for step in together.step_records)
    assert {num_rows for num_rows, _ in graphs._graphs} >= {2, 4, 8}
    expected = alone(roomy, asked, max_tokens=20, ignore_eos=True)
    assert [token_ids(together, f"r{i}") for i in range(12)] == expected


# ---- refusals


@pytest.mark.parametrize(
    ("prompt", "sampling", "sentence"),
    [
        ([], {}, "The prompt is empty"),
        ([5] * 300, {}, "Prompt is 300 tokens, max_model_len is 256 and the answer needs one more. Cut 45 tokens"),
        ([tiny_models.VOCAB_SIZE], {}, "is not in the vocabulary"),
        ([5], {"grammar": "root ::= x"}, "The torch engine follows no grammar"),
        ([5], {"lora": "/nowhere"}, "There is no"),
    ],
)
def test_a_bad_request_is_refused_in_words_and_changes_nothing(on, prompt, sampling, sentence):
    with pytest.raises((RequestError, ModelError)) as refused:
        on.add_request(request(on, "r", prompt, **sampling))
    assert sentence in str(refused.value)
    assert not on.has_unfinished_requests() and not on.scheduler.num_waiting


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"options": {"theads": 2}}, "Unknown option 'theads'"),
        ({"options": {"policy": "lifo"}}, "Unknown policy 'lifo'"),
        ({"options": {"device": "tpu"}}, "Unknown device 'tpu'. Known: cpu"),
        ({"dtype": "f12"}, "Unknown dtype 'f12'"),
    ],
)
def test_what_it_cannot_be_loaded_with_is_refused(tiny: Path, settings: dict[str, Any], sentence: str):
    with pytest.raises(EngineError) as refused:
        engine(tiny, **settings)
    assert sentence in str(refused.value)


# ---- the embedded model


@pytest.fixture(scope="module")
def smollm():
    return embedded(max_num_seqs=16)


@pytest.fixture(scope="module")
def reference() -> Any:
    return AutoModelForCausalLM.from_pretrained(models.get("smollm2-135m").hf_dir, dtype=torch.float32).eval()


def compare_with_transformers(on: Any, reference: Any, asked: list[str], num_tokens: int) -> None:
    how = dict(max_tokens=num_tokens, ignore_eos=True)
    together = serve(on, [request(on, f"r{i}", p, **how) for i, p in enumerate(asked)])
    assert broken_rules(together) == []
    for i, prompt in enumerate(asked):
        ids = on.tokenize(prompt)
        with torch.no_grad():
            whole = reference.generate(
                torch.tensor([ids]), max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=False,
                eos_token_id=None, pad_token_id=0,
            )  # fmt: skip
            expected = reference(whole).logits[0].numpy()
        assert token_ids(together, f"r{i}") == whole[0, len(ids) :].tolist(), prompt
        assert np.abs(on.logits(whole[0].tolist()) - expected).max() < 1e-3, prompt


@pytest.mark.soak
def test_6_prompts_of_24_greedy_tokens_are_those_of_transformers(smollm, reference):
    asked = [f"Question {i}: what makes the number {i * 7} interesting? Answer:" for i in range(6)]
    compare_with_transformers(smollm, reference, asked, 24)


@pytest.mark.soak
def test_50_prompts_of_64_greedy_tokens_are_those_of_transformers(smollm, reference):
    topics = "rivers stars bread music chess trains bees glass maps salt".split()
    forms = ("Tell me about {}.", "Why are there {}?", "{}: a short story.", "def {}(x):", "The history of {} begins")
    compare_with_transformers(smollm, reference, [form.format(t) for t in topics for form in forms], 64)


@pytest.mark.slow
def test_its_arithmetic_passes_the_self_test(smollm):
    assert smollm.self_test() is None
