"""Each cause, tested on two engines whose answers are written down: the one that is to blame is named, no other."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
from stub_engine import Stub, Top, answer

from llmlab.errors import EngineError
from llmlab.parity.case import NUM_TOP, case_of, first_difference
from llmlab.parity.causes import Cause
from llmlab.parity.divergence import first_divergence

CAT, DOG = 2, 3
A_ANSWER, B_ANSWER = (1, CAT), (1, DOG)


def tops(cat: float, dog: float) -> Top:
    """Probabilities of the two candidates, and enough others that they count as asked for."""
    rest = tuple((100 + i, log(0.001), "x") for i in range(NUM_TOP))
    return (*sorted(((CAT, log(cat), "cat"), (DOG, log(dog), "dog")), key=lambda t: -t[1]), *rest)


def causes(
    a: Stub, b: Stub, of_a: dict[str, Any] | None = None, of_b: dict[str, Any] | None = None
) -> dict[str, Cause]:
    results = (
        answer(A_ANSWER, **{"top": tops(0.5, 0.3), **(of_a or {})}),
        answer(B_ANSWER, **{"top": tops(0.3, 0.5), **(of_b or {})}),
    )
    divergence = first_divergence(a, b, "the", results=results)  # type: ignore[arg-type]
    assert divergence is not None
    assert divergence.index == 1 and divergence.tokens == ("cat", "dog")
    return {cause.name: cause for cause in divergence.causes}


def pair(**of_b: Any) -> tuple[Stub, Stub]:
    return Stub("a", A_ANSWER, A_ANSWER), Stub("b", **{"alone": B_ANSWER, "in_batch": B_ANSWER, **of_b})


def confirmed(found: dict[str, Cause]) -> list[str]:
    return [name for name, cause in found.items() if cause.verdict == "confirmed"]


def test_causes_come_in_a_fixed_order():
    order = ["template", "BOS", "tokenization", "weights", "quantization", "rounding", "batch size", "sampler"]
    assert list(causes(*pair())) == order


def test_a_quant_is_confirmed_by_how_far_it_moves_the_candidates():
    found = causes(*pair(quant="Q4_1", dtype="f16"))
    assert confirmed(found) == ["quantization"]
    # ln(0.5 / 0.3) on either side
    assert "move the two candidates by 1.022 nats: a prefers 'cat' by 0.511" in found["quantization"].finding


def test_a_near_tie_is_rounding_and_no_quantization():
    close = {"top": tops(0.4001, 0.4)}, {"top": tops(0.4, 0.4001)}
    assert confirmed(causes(*pair(), *close)) == ["rounding"]
    assert confirmed(causes(*pair(quant="Q8_0"), *close)) == ["rounding"]


def test_other_weights_make_a_quant_only_possible():
    found = causes(*pair(quant="Q4_1", fingerprint="sha256:fedcba9876543210"))
    assert confirmed(found) == ["weights"]
    assert found["quantization"].verdict == "possible"


def test_an_adapter_on_one_side_is_another_model():
    assert confirmed(causes(*pair(lora="adapter")))[0] == "weights"


def test_equal_formats_far_apart_are_explained_by_nothing():
    assert confirmed(causes(*pair())) == []


def test_another_template_is_shown_where_it_parts():
    found = causes(*pair(), {"text": "User: the"}, {"text": "user: the"})
    assert confirmed(found)[0] == "template"
    assert "'User: the' and 'user: the' from character 0 on" in found["template"].finding


def test_a_second_bos_is_found():
    found = causes(*pair(), None, {"prompt": (0, 0, 1)})
    assert confirmed(found)[0] == "BOS"
    assert found["BOS"].finding == "b begins with '<s>' (0), the other does not"


def test_another_tokenizer_is_found_on_the_same_text():
    found = causes(*pair(tokens_of={"the": [0, 4]}), None, {"prompt": (0, 4)})
    assert confirmed(found)[0] == "tokenization"
    assert "from token 1 on" in found["tokenization"].finding


def test_token_ids_have_no_template():
    found = causes(*pair(), {"text": None}, {"text": None})
    assert [found[name].verdict for name in ("template", "tokenization")] == ["excluded", "excluded"]


@pytest.mark.parametrize(
    ("alone", "verdict"), [(A_ANSWER, "confirmed"), ((1, 4), "possible")], ids=["agrees alone", "still another"]
)
def test_the_company_in_a_batch_is_to_blame_when_an_engine_alone_says_otherwise(alone: tuple[int, ...], verdict: str):
    found = causes(*pair(alone=alone))
    assert found["batch size"].verdict == verdict
    assert found["batch size"].finding.startswith("b does not always say the same")


def test_other_sampling_settings_are_listed():
    found = causes(*pair(), None, {"top_k": 5})
    assert found["sampler"].finding == "the settings differ: top_k None and 5"


def test_a_draw_is_no_greedy_choice():
    found = causes(*pair(), {"temperature": 0.7}, {"temperature": 0.7})
    assert found["sampler"].verdict == "confirmed"
    assert found["batch size"].verdict == "possible"


def test_a_token_that_is_not_its_own_argmax_points_at_the_sampler():
    found = causes(*pair(), {"top": tops(0.3, 0.5)})
    assert found["sampler"].verdict == "possible"
    assert found["sampler"].finding.startswith("a did not take")


def test_the_distribution_of_the_answer_itself_comes_first_then_that_of_the_same_answer_again():
    a, b = pair()
    with_top, without = answer(A_ANSWER, top=tops(0.5, 0.3)), answer(B_ANSWER)
    case = case_of((a, b), (with_top, without), "the", {})  # type: ignore[arg-type]
    assert case is not None
    assert [side.source for side in case.sides] == ["answer", "asked again"]


def test_equal_answers_do_not_part():
    a, b = pair()
    assert first_divergence(a, b, "the", results=(answer(A_ANSWER), answer(A_ANSWER))) is None  # type: ignore[arg-type]


def test_a_stopped_answer_says_nothing_of_what_comes_after_it():
    from dataclasses import replace

    a, b = pair()
    stopped = replace(answer((1,)), finish_reason="interrupted")
    assert case_of((a, b), (answer(A_ANSWER), stopped), "the", {}) is None  # type: ignore[arg-type]


def test_an_answer_that_ended_has_no_second_candidate():
    a, b = pair(alone=(1,), in_batch=(1,))
    divergence = first_divergence(a, b, "the", results=(answer(A_ANSWER, top=tops(0.5, 0.3)), answer((1,))))  # type: ignore[arg-type]
    assert divergence is not None
    assert divergence.tokens == ("cat", "(end)")
    assert {c.name: c for c in divergence.causes}["rounding"].finding.startswith("one answer had ended")


def test_other_vocabularies_are_refused():
    class Other(Stub):
        def pieces(self, token_ids: list[int]) -> list[bytes]:
            return [b"?" for _ in token_ids]

    results = answer(A_ANSWER), answer(B_ANSWER)
    with pytest.raises(EngineError, match="a and b do not mean the same by a token id"):
        first_divergence(Stub("a", A_ANSWER), Other("b", B_ANSWER), "the", results=results)  # type: ignore[arg-type]


def test_the_first_difference_counts_a_missing_token():
    assert first_difference((1, 2, 3), (1, 2)) == 2
