"""One sentence form a test. Names stand between stars, as they are bold."""

from __future__ import annotations

import itertools
from typing import Any

import hand_written
from hand_written import share

from llmlab.trace import BlockDelta, CellDelta, ScheduledRequest, Step, Token
from llmlab.trace.example import two_requests
from llmlab.views.narration import Events, died, narrate, paused
from llmlab.views.story import Story

HEAD = {"block_size": 16, "token_budget": None, "max_num_seqs": None, "prefix_caching": True}


def said(
    rows: list[ScheduledRequest] = (), kv: Any = None, *, head: dict[str, Any] | None = None, **fields: Any
) -> str:  # type: ignore[assignment]
    """What is said of a step. Requests are called r0, r1, ...; fields go to the step, or to its events."""
    tokens = [sum(row.num_tokens for row in rows if row.phase == p) for p in ("prefill", "decode", "recompute")]
    names = ("preempted", "finished", "hits", "first_waiting", "emptied")
    told = {name: fields.pop(name) for name in names if name in fields}
    pairs = [(int(row.request_id[1:]), row) for row in rows]
    finished = {f"r{request}": reason for request, reason, _ in told.get("finished", ())}
    step = Step(
        step=3,
        t_s=1.0,
        scheduled=tuple(rows),
        num_scheduled_tokens=sum(tokens),
        num_running=len(rows),
        finished=finished,
        kv=kv,
        **fields,
    )
    segments = narrate(step, Events(tokens=tokens, rows=pairs, **told), "r{}".format, HEAD | (head or {}))
    assert all(weight in (0, 1) and text for text, weight in segments)
    assert all(one[1] != two[1] for one, two in itertools.pairwise(segments)), "neighbours are one segment"
    return "".join(f"*{text}*" if weight else str(text) for text, weight in segments)


def blocks(num_free: int = 9, **changes: Any) -> BlockDelta:
    return BlockDelta(num_free=num_free, num_blocks=64, **changes)


def cells(num_used: int = 100, **changes: Any) -> CellDelta:
    return CellDelta(num_used=num_used, num_cells=1024, num_attended=256, **changes)


def decoding(*requests: int, computed: int = 20) -> list[ScheduledRequest]:
    return [share(f"r{r}", "decode", 1, computed, 8, computed - 7) for r in requests]


# ---- preempted


def test_a_preempted_request_gives_back_its_blocks():
    assert said(kv=blocks(), preempted=[[7, 4, 113]]) == (
        "No free block: *r7* is preempted and gives back its 4 blocks; its 113 tokens must be computed again."
    )


def test_preempted_requests_are_told_in_one_sentence():
    assert said(kv=blocks(), preempted=[[7, 4, 60], [8, 1, 3], [9, 2, 20]]) == (
        "No free block: *r7*, *r8* and *r9* are preempted and give back their 7 blocks; "
        "their 83 tokens must be computed again."
    )


def test_one_block_and_one_token_are_singular():
    assert said(kv=blocks(), preempted=[[7, 1, 1]]) == (
        "No free block: *r7* is preempted and gives back its 1 block; its 1 token must be computed again."
    )


def test_a_preempted_sequence_gives_back_cells():
    assert said(kv=cells(), preempted=[[2, 57, 57]]) == (
        "No free cell: *r2* is preempted and gives back its 57 cells; its 57 tokens must be computed again."
    )


def test_an_engine_that_shows_no_kv_has_no_room():
    assert said(preempted=[[2, 0, 57]]) == "No room: *r2* is preempted; its 57 tokens must be computed again."


def test_how_far_a_preempted_request_was_is_left_out_where_the_trace_does_not_tell():
    assert said(kv=blocks(), preempted=[[7, 4, 0]]) == (
        "No free block: *r7* is preempted and gives back its 4 blocks; its tokens must be computed again."
    )


# ---- back again


def test_a_request_returns_with_what_the_prefix_cache_kept():
    assert said([share("r6", "recompute", 8, 128, 100, 36)], blocks(), hits=[[6, 128]]) == (
        "*r6* returns: 128 tokens found in the prefix cache, 8 tokens recomputed."
    )


def test_a_request_returns_with_nothing():
    assert said([share("r7", "recompute", 61, 0, 60, 1)], blocks()) == "*r7* returns: 61 tokens recomputed."


def test_a_request_that_returns_in_chunks_returns_once():
    assert said([share("r7", "recompute", 9, 61, 60, 10)], blocks()) == "*r7* recomputes 9 tokens more."


def test_a_request_whose_tokens_were_all_kept_recomputes_nothing():
    assert said([share("r7", "decode", 1, 64, 60, 5)], blocks(), hits=[[7, 64]]) == (
        "*r7* returns: 64 tokens found in the prefix cache, nothing recomputed. *r7* decodes one token."
    )


def test_three_that_return_are_told_together_and_apart_from_who_goes_on():
    rows = [share(f"r{r}", "recompute", 20, 16, 30, 9) for r in (4, 5, 6)]
    rows.append(share("r3", "recompute", 2, 90, 30, 62))
    assert said(rows, blocks(), hits=[[4, 16], [5, 16], [6, 16]]) == (
        "*r4*, *r5* and *r6* return: 48 tokens found in the prefix cache, 60 tokens recomputed. "
        "*r3* recomputes 2 tokens more."
    )


# ---- admitted


def test_an_admitted_request_finds_shared_blocks():
    kv = blocks(allocated={"r9": (17, 6, 10, 8)}, ref_counts={17: 2, 6: 3, 10: 2, 8: 1})
    assert said([share("r9", "prefill", 14, 96, 110, 0)], kv, head={"block_size": 32}, hits=[[9, 96]]) == (
        "*r9* is admitted and finds its first 96 tokens in 3 shared blocks (17, 6, 10): nothing to compute for them. "
        "Prefill: *r9* 14 tokens."
    )


def test_blocks_that_nobody_else_holds_are_cached_not_shared():
    kv = blocks(allocated={"r9": (17, 8)}, ref_counts={17: 1, 8: 1})
    assert said([share("r9", "prefill", 14, 16, 30, 0)], kv, hits=[[9, 16]]).startswith(
        "*r9* is admitted and finds its first 16 tokens in 1 cached block (17): nothing to compute for them."
    )


def test_of_many_shared_blocks_four_are_named():
    kv = blocks(allocated={"r9": (1, 2, 3, 4, 5, 6)}, ref_counts=dict.fromkeys(range(1, 7), 2))
    assert "in 6 shared blocks (1, 2, 3, 4, …):" in said([share("r9", "prefill", 1, 96, 97, 0)], kv, hits=[[9, 96]])


def test_several_admitted_requests_are_told_in_one_sentence():
    kv = blocks(allocated={"r1": (7, 8), "r2": (7, 9)}, ref_counts={7: 3, 8: 1, 9: 1})
    rows = [share(f"r{r}", "prefill", 4, 16, 20, 0) for r in (1, 2)]
    assert said(rows, kv, hits=[[1, 16], [2, 16]]) == (
        "*r1* and *r2* are admitted and find 32 tokens in shared blocks: nothing to compute for them. "
        "Prefill: *r1* 4 tokens and *r2* 4 tokens."
    )


def test_without_blocks_the_tokens_are_found_in_the_prefix_cache():
    assert said([share("r1", "prefill", 4, 16, 20, 0)], hits=[[1, 16]]).startswith(
        "*r1* is admitted and finds its first 16 tokens in the prefix cache: nothing to compute for them."
    )


# ---- prefill


def test_a_chunk_says_of_how_many_tokens():
    rows = [share("r8", "prefill", 62, 0, 106, 0), share("r9", "prefill", 1, 0, 1, 0)]
    assert said(rows, blocks()) == "Prefill: *r8* 62 tokens (a chunk of 106) and *r9* 1 token."


def test_the_last_chunk_is_a_chunk_too():
    rows = [share("r8", "prefill", 44, 62, 106, 0)]
    assert said(rows, blocks()) == "Prefill: *r8* 44 tokens (a chunk of 106)."


def test_more_than_four_prefills_are_counted():
    assert said([share(f"r{r}", "prefill", 128, 0, 128, 0) for r in range(63)], blocks()) == (
        "63 requests prefill 128 tokens each."
    )


def test_prefills_of_different_sizes_are_added_up():
    rows = [share(f"r{r}", "prefill", 1000 + r, 0, 2000, 0) for r in range(5)]
    assert said(rows, blocks()) == "5 requests prefill 5\u2009010 tokens together."


# ---- evicted


def test_evicted_blocks_are_named():
    assert said(kv=blocks(evicted=(5, 16))) == "Cached blocks 5 and 16 evicted to make room."
    assert said(kv=blocks(evicted=(5,))) == "Cached block 5 evicted to make room."


def test_many_evicted_blocks_are_counted():
    assert said(kv=blocks(evicted=(1, 2, 3, 4, 5))) == "5 cached blocks evicted to make room."


# ---- finished


def test_finished_requests_leave_full_blocks_in_the_cache():
    assert said(kv=blocks(), finished=[[0, "length", 5], [1, "length", 7]]) == (
        "*r0* and *r1* finish (length); blocks go back to the queue, full ones stay cached."
    )


def test_without_a_prefix_cache_no_block_stays():
    assert said(kv=blocks(), head={"prefix_caching": False}, finished=[[0, "stop", 5]]) == (
        "*r0* finishes (stop); blocks go back to the queue."
    )


def test_different_reasons_stand_beside_the_names():
    assert said(finished=[[0, "length", 5], [1, "stop", 7]]) == "*r0* (length) and *r1* (stop) finish."


def test_many_that_finish_are_counted_by_reason():
    many = [[r, "stop" if r < 2 else "length", 5] for r in range(6)]
    assert said(finished=many) == "6 requests finish (2 stop, 4 length)."


def test_an_aborted_request_is_stopped_after_so_many_tokens():
    assert said(kv=blocks(freed={"r3": (1, 2)}), finished=[[3, "abort", 12]]) == (
        "*r3* is stopped after 12 tokens; its blocks are free."
    )


def test_a_request_that_is_aborted_while_it_waits_has_no_blocks_to_free():
    assert said(kv=blocks(), finished=[[3, "abort", 0]]) == "*r3* is stopped before its first token."


def test_a_failed_request_fails():
    assert said(kv=cells(freed={"r3": ((0, 9),)}), finished=[[3, "error", 1]]) == (
        "*r3* fails after 1 token; its cells are free."
    )


# ---- decode


def test_decoding_requests_are_counted_and_new_blocks_named():
    kv = blocks(allocated={"r2": (14,)})
    assert said(decoding(*range(8)), kv) == "8 requests decode one token each; block 14 handed out."
    kv = blocks(allocated={"r2": (14,), "r3": (2,)})
    assert said(decoding(*range(8)), kv) == "8 requests decode one token each; blocks 14 and 2 handed out."


def test_one_decoding_request_is_named():
    assert said(decoding(4), blocks()) == "*r4* decodes one token."


def test_blocks_of_prefilling_requests_are_not_handed_out_to_decode():
    rows = [*decoding(0, 1), share("r2", "prefill", 4, 0, 4, 0)]
    assert said(rows, blocks(allocated={"r2": (14,)})) == "Prefill: *r2* 4 tokens. 2 requests decode one token each."


def test_a_boundary_that_all_cross_together_is_said():
    kv = blocks(allocated={f"r{r}": (r,) for r in range(6)})
    assert said(decoding(*range(6), computed=32), kv) == (
        "6 requests decode one token each; 6 blocks handed out: all of them crossed a 16-token boundary together."
    )


def test_a_boundary_that_some_cross_is_not():
    kv = blocks(allocated={f"r{r}": (r,) for r in range(6)})
    rows = [*decoding(*range(6), computed=32), *decoding(6)]
    assert said(rows, kv) == "7 requests decode one token each; 6 blocks handed out."


# ---- drafts


def test_accepted_drafts_are_counted():
    rows = [share("r2", "decode", 5, 20, 8, 13, num_draft_tokens=4)]
    tokens = tuple(Token(request_id="r2", token_id=t) for t in (1, 2, 3, 4))
    assert said(rows, blocks(), tokens=tokens) == "*r2* drafts 4 tokens, 3 are accepted."


def test_one_and_no_accepted_draft_have_their_own_words():
    said_of_story = ["".join(str(text) for text, _ in r["say"]) for r in Story.of(_drafts()).steps]
    assert said_of_story[1:3] == [
        "a drafts 2 tokens, 1 is accepted. 3 of 8 budget tokens used.",
        "a drafts 2 tokens, none is accepted. 3 of 8 budget tokens used.",
    ]


def test_several_that_draft_are_told_together():
    rows = [share(f"r{r}", "decode", 3, 20, 8, 13, num_draft_tokens=2) for r in (0, 1)]
    tokens = tuple(Token(request_id=r, token_id=1) for r in ("r0", "r0", "r1"))
    assert said([*rows, *decoding(2)], blocks(allocated={"r1": (3,)}), tokens=tokens) == (
        "*r2* decodes one token. *r0* and *r1* draft 4 tokens, 1 is accepted; block 3 handed out."
    )


def _drafts():
    return hand_written.drafts_accepted_and_rejected()


# ---- waiting


def test_those_who_wait_say_for_whose_blocks_there_is_no_room():
    assert said(kv=blocks(3), num_waiting=5, first_waiting=(9, 64)) == "5 wait: no room for *r9*'s 4 blocks."
    assert said(kv=blocks(3), num_waiting=1, first_waiting=(9, 64)) == "*r9* waits: no room for its 4 blocks."


def test_where_there_is_room_no_reason_is_invented():
    assert said(kv=blocks(4), num_waiting=5, first_waiting=(9, 64)) == "5 wait."
    assert said(kv=blocks(0), num_waiting=1) == "1 waits."  # nobody knows who
    assert said(kv=blocks(0), num_waiting=1, first_waiting=(9, None)) == "*r9* waits."


def test_the_running_limit_keeps_others_waiting():
    assert said(decoding(0, 1), blocks(0), num_waiting=5, head={"max_num_seqs": 2}, first_waiting=(9, 64)) == (
        "2 requests decode one token each. 5 wait: the running limit of 2 is reached."
    )


def test_the_token_budget_keeps_others_waiting():
    rows = [share("r0", "prefill", 64, 0, 100, 0)]
    assert said(rows, blocks(), num_waiting=2, token_budget=64, first_waiting=(9, 64)) == (
        "Prefill: *r0* 64 tokens (a chunk of 100). 2 wait: the token budget is used up. 64 of 64 budget tokens used."
    )


def test_sequences_wait_for_cells():
    assert said(kv=cells(1000), num_waiting=2, first_waiting=(9, 40)) == "2 wait: no room for *r9*'s 40 cells."
    assert said(kv=cells(984), num_waiting=2, first_waiting=(9, 40)) == "2 wait."


# ---- cells


def test_a_sequence_joins_and_shares_the_common_prefix():
    own = (*((100 + 3 * i, 72 + i, 1) for i in range(15)), (200, 87, 35))
    kv = cells(shared={"r2": ((0, 70), (80, 2))}, written={"r2": own})
    assert said([share("r2", "prefill", 50, 72, 122, 0)], kv, hits=[[2, 72]]) == (
        "*r2* joins: it shares the 72 cells of the common prefix (nothing computed) "
        "and 50 cells of its own are written into 16 runs."
    )


def test_a_sequence_joins_without_a_common_prefix():
    assert said([share("r2", "prefill", 5, 0, 5, 0)], cells(written={"r2": ((0, 0, 5),)})) == (
        "*r2* joins: 5 cells are written into 1 run."
    )


def test_a_prompt_that_goes_on_does_not_join_again():
    kv = cells(written={"r2": ((5, 5, 4),)})
    assert said([share("r2", "prefill", 4, 5, 9, 0)], kv) == "Prefill: *r2* 4 tokens (a chunk of 9)."


def test_two_that_join_are_told_apart():
    kv = cells(written={"r1": ((0, 0, 5),), "r2": ((5, 0, 1),)})
    assert said([share("r1", "prefill", 5, 0, 5, 0), share("r2", "prefill", 1, 0, 1, 0)], kv) == (
        "*r1* joins: 5 cells are written into 1 run. *r2* joins: 1 cell is written into 1 run."
    )


def test_three_that_join_are_told_together():
    rows = [share(f"r{r}", "prefill", 4, 16, 20, 0) for r in (1, 2, 3)]
    assert said(rows, cells(), hits=[[1, 16], [2, 16], [3, 16]]) == (
        "*r1*, *r2* and *r3* join: 48 tokens found in shared cells (nothing computed), 12 cells written."
    )


def test_a_sequence_that_ends_leaves_holes_and_the_head_goes_back():
    kv = cells(freed={"r3": ((0, 72), (195, 57))}, head=195)
    assert said(kv=kv, finished=[[3, "length", 20]], emptied={3: 57}) == (
        "*r3* ends: 57 cells become holes, 72 stay because others share them. "
        "The head goes back to the first hole, cell 195."
    )


def test_a_head_that_stays_is_not_told():
    kv = cells(freed={"r3": ((195, 1),)}, head=30)
    assert said(kv=kv, finished=[[3, "length", 20]], emptied={3: 1}) == "*r3* ends: 1 cell becomes a hole."


def test_cells_that_two_sequences_of_the_same_end_shared_become_holes_once():
    kv = cells(freed={"r3": ((0, 4), (10, 1)), "r4": ((0, 4), (20, 2))})
    assert said(kv=kv, finished=[[3, "length", 2], [4, "stop", 2]], emptied={3: 1, 4: 6}) == (
        "*r3* and *r4* end: 7 cells become holes."
    )


def test_of_those_that_end_some_may_leave_and_some_stay():
    kv = cells(freed={"r3": ((195, 57),)})
    assert said(kv=kv, finished=[[2, "stop", 9], [3, "stop", 20]], emptied={3: 56}) == (
        "*r3* ends: 56 cells become holes, 1 stays because others share it. "
        "*r2* finishes (stop); the cells stay for requests that begin alike."
    )


def test_cells_of_a_finished_sequence_may_stay():
    assert said(kv=cells(), finished=[[3, "stop", 20]]) == (
        "*r3* finishes (stop); the cells stay for requests that begin alike."
    )


def test_cells_that_were_kept_for_others_are_given_up():
    kv = cells(freed={"r0": ((3, 2),)}, written={"r5": ((3, 0, 2),)})
    assert said([share("r5", "prefill", 2, 0, 2, 0)], kv, emptied={0: 2}) == (
        "*r5* joins: 2 cells are written into 1 run. 2 cells that *r0* had left are given up."
    )


def test_sequences_decode_into_one_cell_each():
    assert said(decoding(*range(7)), cells()) == "7 sequences decode: 7 cells written."
    assert said(decoding(4), cells()) == "*r4* decodes: 1 cell written."


# ---- the whole of it


def test_the_budget_comes_last_and_three_events_at_most():
    rows = [*decoding(0, 1), share("r2", "prefill", 4, 0, 4, 0)]
    kv = blocks(0, evicted=(5,))
    told = said(rows, kv, preempted=[[7, 4, 113]], token_budget=64, num_waiting=4)
    assert told == (
        "No free block: *r7* is preempted and gives back its 4 blocks; its 113 tokens must be computed again. "
        "Prefill: *r2* 4 tokens. Cached block 5 evicted to make room. 6 of 64 budget tokens used."
    )


def test_a_step_in_which_nothing_happens_says_nothing():
    assert said(kv=blocks()) == ""


def test_a_name_is_a_segment_of_its_own_whatever_is_in_it():
    step = Step(step=0, t_s=0.0, scheduled=(share("x", "decode", 1, 5, 4, 2),), num_scheduled_tokens=1)
    events = Events(tokens=[0, 1, 0], rows=[(0, step.scheduled[0])])
    assert narrate(step, events, lambda index: "<b>*x*", HEAD) == [["<b>*x*", 1], [" decodes one token.", 0]]


def test_a_step_of_the_example_in_full():
    assert Story.of(two_requests()).steps[1]["say"] == [
        ["b", 1],
        [" is admitted and finds its first 4 tokens in 1 shared block (0): nothing to compute for them. Prefill: ", 0],
        ["b", 1],
        [" 1 token. ", 0],
        ["a", 1],
        [" decodes one token. 2 of 8 budget tokens used.", 0],
    ]


def test_a_dead_engine_and_a_paused_one_have_a_sentence():
    assert died(41, "SIGSEGV") == [["The engine died at step 41: SIGSEGV. The trace up to step 40 is kept.", 0]]
    assert paused(27) == [["Paused before step 27.", 0]]
