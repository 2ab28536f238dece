"""A server seen from inside: its own steps beside the answers, whose requests are whose, gaps, clocks, the token."""

from __future__ import annotations

import hmac
import json
import os
import random
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from live_support import FakeScreen
from serve_support import MakeServed, Served, wait_until

import llmlab
from llmlab.engines import trace_listener
from llmlab.engines.handle import EngineHandle
from llmlab.engines.trace_listener import TraceListener
from llmlab.engines.trace_outlets import Line
from llmlab.engines.trace_stream import TraceSender
from llmlab.errors import EngineError
from llmlab.remote import TracedHandle
from llmlab.remote.keys import Key
from llmlab.remote.seen import Seen, follow
from llmlab.remote.trace_client import TraceClient
from llmlab.remote.whose import Whose
from llmlab.serve.tracing import Followed
from llmlab.trace import BlockDelta, Capabilities, Header, Request, Step, Trace
from llmlab.trace.whose import is_other
from llmlab.views.live import live_of
from tests.local_servers import free_port

TOKEN = "the-trace-token"
Traced = Callable[..., tuple[TracedHandle, Served]]


@pytest.fixture
def traced(fake: MakeServed, monkeypatch: pytest.MonkeyPatch) -> Traced:
    """traced(step_s=0.01): the engine without a model, served, and connected with its trace."""

    def make(**options: object) -> tuple[TracedHandle, Served]:
        echo = fake(**options)
        monkeypatch.setenv("ECHO_KEY", echo.token)
        far = llmlab.connect(echo.url, api_key_env="ECHO_KEY", name="far", trace=True)
        assert isinstance(far, TracedHandle)
        return far, echo

    return make


# ---- what is seen


def test_a_run_has_the_servers_own_steps_and_its_kv_cache_with_our_requests_under_our_names(traced: Traced):
    far, echo = traced(step_s=0.002)
    other = echo.handle.batch(["somebody else's"], max_tokens=40)
    run = far.batch(["abc", "defgh"], max_tokens=12)
    answers = run.wait()
    assert [answer.text for answer in answers] == ["abcabcabcabc", "defghdefghde"]
    trace = run.trace
    assert trace.validate() == [] and trace.header.capabilities.steps and trace.header.capabilities.kv == "cells"
    ours = {request.request_id: request for request in trace.request_records if not is_other(request)}
    others = [request.request_id for request in trace.request_records if is_other(request)]
    assert others == ["other-r1"] and other.request_ids == ["r1"]
    assert list(ours) == run.request_ids == ["r1", "r2"]
    assert {name for step in trace.step_records for name in step.finished} >= {"r1", "r2"}
    assert dict(zip(trace.requests["request_id"], trace.requests["is_other"], strict=True)) == {
        **dict.fromkeys(ours, False), **dict.fromkeys(others, True),
    }  # fmt: skip
    tokens = [token for step in trace.step_records for token in step.tokens if token.request_id == "r1"]
    assert [token.token_id for token in tokens] == list(answers[0].token_ids)
    other.wait()


def test_the_kv_cache_is_that_of_the_server_at_every_step(traced: Traced):
    far, echo = traced()
    far.batch(["abc", "abcdef", "abcxyz"], max_tokens=20).wait()
    echo.complete("of a third client", max_tokens=9)
    assert wait_until(lambda: len(far.trace.step_records) == len(echo.handle.trace.step_records))
    seen, own = far.trace, echo.handle.trace
    assert seen.validate() == []
    for step in random.Random(7).sample(own.step_records, 6):
        there, here = own.kv(step.step), seen.kv(step.step)
        names = [{far._seen._whose.name(name) for name in holders.split(", ")} for holders in there["request_ids"]]
        assert [set(holders.split(", ")) for holders in here["request_ids"]] == names
        assert there.drop(columns="request_ids").equals(here.drop(columns="request_ids")), step.step


def test_a_trace_that_is_saved_still_says_whose_each_request_was(traced: Traced, tmp_path):
    far, echo = traced()
    echo.handle.generate("not ours", max_tokens=3)
    far.generate("ours", max_tokens=3)
    assert wait_until(lambda: len(far.trace.request_records) == 2)
    again = Trace.load(far.trace.save(tmp_path / "seen.jsonl"))
    assert sorted((request.prompt_text or "", is_other(request)) for request in again.request_records) == [
        ("<user>not ours", True),
        ("<user>ours", False),
    ]


def test_who_connects_in_the_middle_begins_with_the_cache_as_it_is_then(fake: MakeServed, monkeypatch):
    echo = fake(step_s=0.01)
    monkeypatch.setenv("ECHO_KEY", echo.token)
    running = echo.handle.batch(["already here"], max_tokens=60)
    assert wait_until(lambda: echo.handle.last_step is not None)
    far = llmlab.connect(echo.url, api_key_env="ECHO_KEY", trace=True)
    running.wait()
    assert wait_until(lambda: any("other-r1" in step.finished for step in far.trace.step_records))
    assert far.trace.header.kv_at_start is not None
    assert far.trace.validate() == []


def test_results_of_a_traced_server_are_measured_here_and_its_trace_on_its_own_clock(traced: Traced):
    far, echo = traced(step_s=0.005)
    answer = far.generate("abc", max_tokens=10)
    (request,) = answer.trace.request_records
    assert answer.ttft_s is not None and 0 < answer.ttft_s <= answer.e2e_s
    # one machine has one clock: what was measured over HTTP is the offset of the engine's own start
    assert far.clock.epoch_s == pytest.approx(echo.handle.epoch_s, abs=far.clock.error_s + 1e-4)
    assert far.trace.header.started_at == pytest.approx(echo.handle.header.started_at, abs=0.05)
    assert far.trace.header.extra["clock"]["of"] == "server"
    assert 0 <= request.arrival_s - request.extra["sent_s"] < 1
    assert request.prompt_text == "<user>abc" and request.extra["reported"]["num_output_tokens"] == 10


# ---- views


def test_watching_the_handle_shows_what_others_ask_while_they_ask_it(traced: Traced):
    far, echo = traced(step_s=0.01)
    live, screen = live_of(far.following), FakeScreen()
    live.attach(screen)
    echo.handle.generate("somebody else's", max_tokens=5)
    far.generate("ours", max_tokens=5)
    assert wait_until(lambda: live.story is not None and sum(len(s["fin"]) for s in live.story.steps) == 2)
    assert [(r["name"], r.get("other", False)) for r in live.story.requests] == [("o1", True), ("r1", False)]
    assert far.url in screen.told[-1][1][0][0]
    assert llmlab.watch(far).is_live
    live.stop()
    assert wait_until(lambda: screen.num_frozen == 1)
    assert llmlab.watch(far).title == f"All of {far.url}"


def test_a_picture_has_the_texts_of_our_prompts_and_not_those_of_others(traced: Traced):
    far, echo = traced(step_s=0.005)
    live, screen = live_of(far.following), FakeScreen()
    live.attach(screen)
    echo.handle.generate("somebody else's", max_tokens=5)
    run = far.batch(["abé"], max_tokens=4)
    run.wait()
    assert wait_until(lambda: live.story is not None and any(r.get("pieces") for r in live.story.requests))
    texts = {request["name"]: request["pieces"] for request in live.story.requests}
    assert texts == {"o1": None, "r1": list("<user>abé")}
    assert wait_until(lambda: sum(len(step["fin"]) for step in live.story.steps) == 2)
    told = [step["x"] for step in live.story.steps if step.get("x")]
    assert [part for pairs in told for part in pairs] == [1, "a", 1, "b", 1, "é", 1, "a"]
    assert not any(step.get("dx") for step in live.story.steps)
    live.stop()
    story = run.view.story
    assert story is not None and [r["pieces"] for r in story.requests if r["name"] == "r1"] == [list("<user>abé")]


def test_the_view_of_a_run_ends_with_the_steps_that_end_it(traced: Traced):
    far, _ = traced()
    run = far.batch(["abc", "de"], max_tokens=6)
    run.wait()
    story = run.view.story
    assert story is not None and sum(len(step["fin"]) for step in story.steps) == 2
    assert story.head["kind"] == "cells" and "unseen" not in story.head


def test_a_live_view_without_a_trace_learns_how_long_prompts_are_when_the_server_tells_it(far: Callable[..., Any]):
    handle = far(step_s=0.01)
    run = handle.batch(["abc", "defgh"], max_tokens=20)
    live, screen = live_of(run), FakeScreen()
    live.attach(screen)
    run.wait()
    assert wait_until(lambda: screen.num_frozen == 1)
    assert [request["prompt"] for request in live.story.requests] == [9, 11]
    told = {index: request["prompt"] for m in screen.messages for index, request in m["requests"]}
    assert told == {0: 9, 1: 11}


# ---- gaps


class FakeServer:
    """Something that traces, at a port that stays the same: start() it, stop() it, tell it what it did."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.kv: BlockDelta | None = None
        self.alive: list[Request] = []
        self.sender: TraceSender | None = None

    def start(self) -> None:
        self.sender = TraceSender(self.url, self.opening, token=TOKEN, now_s=lambda: time.monotonic() + 1000)

    def opening(self) -> list[Line]:
        can = Capabilities(kv="blocks", block_table=True)
        return [Header(engine="vllm", capabilities=can, num_blocks=8, kv_at_start=self.kv), *self.alive]

    def stop(self) -> None:
        if self.sender is not None:
            self.sender.close()
            self.sender = None

    def tell(self, *records: Line) -> None:
        assert self.sender is not None
        self.sender.send(records)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    one = FakeServer()
    one.start()
    yield one
    one.stop()


@pytest.fixture
def followed(server: FakeServer) -> Iterator[Seen]:
    seen, client = follow(server.url, Key(TOKEN), Whose())
    yield seen
    client.close()


def request(name: str) -> Request:
    return Request(request_id=name, arrival_s=0.0, prompt_token_ids=(1, 2))


def step(number: int, **told: Any) -> Step:
    return Step(step=number, t_s=float(number), **told)


def test_after_a_drop_the_trace_begins_anew_and_nobody_draws_over_the_gap(server: FakeServer, followed: Seen):
    segments = followed.segments
    held = BlockDelta(allocated={"a": (1, 2)}, ref_counts={1: 1, 2: 1}, num_free=6, num_blocks=8)
    server.tell(request("a"), step(0, kv=held, waiting=("a",)), step(1))
    assert wait_until(lambda: segments.num_steps == 2)
    server.stop()
    assert wait_until(lambda: not segments.is_open)
    (broken,) = segments.traces()
    (incident,) = broken.incidents
    assert (incident.incident, incident.requests) == ("cut", ("a",)) and "broke off" in incident.text
    server.kv = BlockDelta(allocated={"a": (1, 2, 3)}, ref_counts={1: 1, 2: 1, 3: 1}, num_free=5, num_blocks=8)
    server.alive = [request("a")]
    server.start()
    assert wait_until(lambda: segments.is_open)
    server.tell(step(7))
    assert wait_until(lambda: len(segments.traces()[-1].step_records) == 1)
    (gap,) = segments.gaps
    assert (gap.after_step, gap.before_step) == (1, 7) and "step 1" in str(gap) and "step 7" in str(gap)
    first, second = segments.traces()
    assert [s.step for s in first.step_records] == [0, 1] and [s.step for s in second.step_records] == [7]
    assert second.kv(7)["block_id"].tolist() == [1, 2, 3]
    # who follows the first part never gets steps of the second
    assert segments.since(2).steps == []


def test_a_live_view_begins_anew_after_a_gap(traced: Traced):
    far, echo = traced()
    live, screen = live_of(far.following), FakeScreen()
    live.attach(screen)
    far.generate("ours", max_tokens=5)
    assert wait_until(lambda: live.story is not None and any(s["fin"] for s in live.story.steps))
    port, token, handle = echo.server.port, echo.token, echo.handle
    echo.server.stop()
    assert wait_until(lambda: not far.is_seen) and "broke off" in repr(far)
    assert wait_until(lambda: "No step is seen" in screen.told[-1][1][0][0])
    handle.generate("unseen", max_tokens=5)
    again = llmlab.serve(handle, port=port, token=token)
    assert wait_until(lambda: far.is_seen)
    handle.generate("seen again", max_tokens=5)
    assert wait_until(lambda: any(m.get("anew") for m in screen.of("k")))
    assert wait_until(lambda: live.story is not None and any(s["fin"] for s in live.story.steps))
    # what was not seen left cells behind that a later prompt may share
    assert {request["name"] for request in live.story.requests if request.get("other")} == {"o1", "o2"}
    (gap,) = far.gaps
    assert gap.before_step - gap.after_step > 5
    live.stop()
    again.stop()


def test_a_client_that_is_too_slow_is_told_how_much_it_lost(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trace_listener, "MAX_WAITING", 5)
    server = FakeServer()
    server.start()
    assert server.sender is not None
    client = trace_listener.Client()
    server.sender._welcome(client)
    server.tell(*(step(number) for number in range(9)))
    assert [type(record).__name__ for record in client.take()] == ["Header", "Step", "Step", "Step", "Step"]
    server.tell(step(9))
    (header,) = client.take()
    assert isinstance(header, Header) and header.extra["num_lost_records"] == 6
    server.stop()


def test_a_server_that_sends_no_trace_is_no_reason_to_stop_trying(server: FakeServer, followed: Seen):
    """A line that nobody can read ends the stream; the next one begins with the cache as it is then."""
    assert server.sender is not None
    for outlet in server.sender._outlets:
        outlet._way.put(Header(engine="x", extra={"schema": 7}))  # not to be encoded
    assert wait_until(lambda: followed.segments.num_begun == 2)
    server.tell(step(3))
    assert wait_until(lambda: followed.segments.last_step is not None)


def test_the_clock_of_the_server_is_measured_against_ours(followed: Seen):
    assert followed.clock.epoch_s == pytest.approx(-1000, abs=followed.clock.error_s + 1e-4)
    assert followed.clock.error_s < 1


# ---- the token


def get(url: str, token: str | None) -> tuple[int, dict[str, Any]]:
    asked = urllib.request.Request(url, headers={} if token is None else {"Authorization": token})
    try:
        with urllib.request.urlopen(asked, timeout=5) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.parametrize("route", ["/trace", "/trace/clock", "/", "/elsewhere"])
@pytest.mark.parametrize("token", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
def test_without_the_token_the_trace_of_a_vllm_server_answers_401(server: FakeServer, route: str, token: str | None):
    status, body = get(server.url + route, token)
    assert status == 401 and TOKEN not in json.dumps(body)
    assert get(f"{server.url}/elsewhere", f"Bearer {TOKEN}")[0] == 404
    assert "t_s" in get(f"{server.url}/trace/clock", f"Bearer {TOKEN}")[1]


def test_its_token_is_compared_by_the_function_that_takes_equally_long(server: FakeServer, monkeypatch):
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: bool(compared.append((a, b))))
    assert get(f"{server.url}/trace/clock", "Bearer guess")[0] == 401
    assert compared == [(b"guess", TOKEN.encode())]


@pytest.mark.parametrize("token", [None, "", "short", "has a space in it"])
def test_nobody_can_follow_a_trace_that_has_no_good_token(token: str | None):
    with pytest.raises(EngineError, match="LLMLAB_TRACE_TOKEN"):
        TraceSender("http://127.0.0.1:0", list, token=token)


@pytest.mark.parametrize("address", ["http://127.0.0.1", "http://127.0.0.1:x", "http://a:b@127.0.0.1:1", "http://:1/x"])
def test_a_place_where_nobody_can_listen_is_named(address: str):
    with pytest.raises(EngineError, match="no place to listen at"):
        TraceSender(address, list, token=TOKEN)


def test_a_trace_is_for_this_machine_unless_somebody_says_otherwise():
    def listener(address: str) -> TraceListener:
        return TraceListener(address, TOKEN, welcome=lambda client: None, now_s=time.monotonic)

    here, open_ = listener("http://:0"), listener("http://0.0.0.0:0")
    assert here._server.server_address[0] == "127.0.0.1" and here.warning == ""
    assert "unencrypted" in open_.warning
    here.close()
    open_.close()


def test_no_more_clients_than_there_is_room_for(server: FakeServer, followed: Seen, monkeypatch):
    monkeypatch.setattr(trace_listener, "MAX_CLIENTS", 1)
    status, body = get(f"{server.url}/trace", f"Bearer {TOKEN}")
    assert status == 429 and "limit" in body["error"]["message"]


def test_a_wrong_token_is_told_when_connecting_and_is_in_no_text(server: FakeServer, fake: MakeServed, monkeypatch):
    echo = fake()
    monkeypatch.setenv("ECHO_KEY", echo.token)
    monkeypatch.setenv("WRONG", "a-wrong-secret")
    with pytest.raises(EngineError, match="refuses the token") as caught:
        llmlab.connect(echo.url, api_key_env="ECHO_KEY", trace=server.url, trace_token_env="WRONG")
    assert "a-wrong-secret" not in str(caught.value)
    # the key of one server is not shown to another
    sent: list[str] = []
    monkeypatch.setattr(TraceListener, "knows", lambda self, authorization: bool(sent.append(authorization)))
    with pytest.raises(EngineError, match="wants a token"):
        llmlab.connect(echo.url, api_key_env="ECHO_KEY", trace=server.url)
    assert sent == [""]


@pytest.mark.parametrize("is_there", [True, False])
def test_where_there_is_no_trace_connect_says_how_to_get_one(scripted, is_there: bool):
    address = scripted.url if is_there else "http://127.0.0.1:9"
    with pytest.raises(EngineError, match="--scheduler-cls"):
        llmlab.connect(scripted.url, trace=address)
    with pytest.raises(EngineError, match="Ollama"):
        llmlab.connect(scripted.url, kind="ollama", trace=True)


# ---- the route of our own server


def test_a_stream_begins_anew_when_what_comes_next_is_not_kept_any_more(fake: MakeServed):
    handle: EngineHandle = fake().handle
    followed = Followed(handle)
    (header,) = followed.begin()
    assert isinstance(header, Header)
    handle.generate("abc", max_tokens=4)
    assert [type(record).__name__ for record in followed.news()][:2] == ["Request", "Step"]
    assert followed.news() == []
    recorder = handle._connection.recorder
    handle.generate("abc", max_tokens=40)
    recorder._max_bytes = 1
    while recorder._first <= followed._next_step:
        recorder._fold_oldest()
    (again, *_) = followed.news()
    assert isinstance(again, Header) and again.kv_at_start is not None


def test_a_filter_sees_every_record_and_decides_what_goes_out(fake: MakeServed):
    import httpx

    from llmlab.serve.tracing import Tracing

    echo = fake()
    asked: list[str] = []

    def filter_of(http_request: Any) -> Callable[[Line], Line | None]:
        asked.append(http_request.url.path)
        return lambda record: None if isinstance(record, Request) else record

    tracing: Tracing = echo.server._service._tracing
    tracing._filter_of = filter_of
    echo.handle.generate("secret", max_tokens=4)
    with httpx.stream("GET", f"{echo.url}/trace", headers={"Authorization": f"Bearer {echo.token}"}) as stream:
        assert stream.headers["content-type"] == "application/jsonl"
        lines = stream.iter_lines()
        assert '"schema"' in next(lines)
        echo.handle.generate("another secret", max_tokens=4)
        came = [next(lines) for _ in range(4)]
        assert tracing.num_open == 1
    assert asked == ["/trace"] and all('"step"' in line for line in came if line) and "secret" not in "".join(came)
    assert wait_until(lambda: tracing.num_open == 0)


def test_when_the_engine_of_a_server_dies_the_trace_says_so_and_stays(traced: Traced):
    far, echo = traced(isolation="host", step_s=0.02)
    assert echo.handle.pid != os.getpid()
    run = far.batch(["abc"], max_tokens=200, ignore_eos=True)
    assert wait_until(lambda: len(far.trace.step_records) > 3)
    os.kill(echo.handle.pid, signal.SIGKILL)
    with pytest.raises(EngineError):
        run.wait(20)
    assert wait_until(lambda: not far.is_seen)
    time.sleep(0.5)  # it tries again meanwhile, and there is nothing
    assert not far.is_seen and len(far.trace.step_records) > 3
    (incident,) = far.trace.incidents
    assert (incident.incident, incident.requests) == ("died", ("r1",)) and "SIGKILL" in incident.text
    assert echo.http.get("/trace").status_code == 503


def test_asking_for_the_head_of_a_trace_does_not_wait_for_its_end(fake: MakeServed):
    echo = fake()
    assert echo.http.head("/trace").headers["content-type"] == "application/jsonl"
    told_s = echo.http.get("/trace/clock").json()["t_s"]
    assert told_s == pytest.approx(time.monotonic() - echo.handle.epoch_s, abs=5)


def test_the_client_stops_when_it_is_told_to(server: FakeServer):
    seen, client = follow(server.url, Key(TOKEN), Whose())
    assert isinstance(client, TraceClient) and seen.segments.is_open
    started = time.monotonic()
    client.close()
    assert time.monotonic() - started < 1.5 and not client._thread.is_alive()
