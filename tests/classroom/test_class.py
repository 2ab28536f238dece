"""A class over HTTP: who gets in, whose turn it is, what is seen of whom."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest
from class_support import Class, MakeClass, Watcher, error_of
from serve_support import wait_until
from wild import GOOD, Wild

import llmlab
from benchmarks.class_of_students import Asked, Student, attend, flood, leaks, lost, worst_over_median
from llmlab.classroom.hiding import HIDDEN_ID
from llmlab.classroom.names import LECTURER
from llmlab.errors import EngineError
from llmlab.trace.whose import is_other

LONG = {"max_tokens": 200, "ignore_eos": True}
ROUTES = ["/class/me", "/class/students", "/trace", "/trace/clock", "/v1/models", "/metrics", "/health", "/nowhere"]


def test_each_student_has_a_token_of_his_own_and_without_one_every_route_is_closed(open_class: MakeClass):
    one = open_class()
    for name in ("ada", "bob", LECTURER):
        assert one.ask(name, "abc", max_tokens=4).json()["choices"][0]["text"] == "abca"
    for path in ROUTES:
        response = httpx.get(one.url + path, headers={"Authorization": "Bearer somebody-elses-token"})
        assert response.status_code == 401 and error_of(response)["code"] == "invalid_api_key"


def test_a_student_who_lost_a_token_goes_on_with_another_and_the_server_runs_on(open_class: MakeClass):
    one = open_class()
    assert one.ask("ada", "abc", max_tokens=2).status_code == 200
    token = one.room.new_token("ada")
    assert one.ask("ada", "abc", max_tokens=2).status_code == 401
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{one.url}/class/me", headers=headers).json()["me"]["asked"] == 1


def test_after_a_restart_the_tokens_are_the_same(open_class: MakeClass):
    one = open_class()
    one.room.stop()
    again = Class(llmlab.classroom(one.handle, students=["ada", "bob", "cleo"], folder=one.room.register.folder))
    try:
        assert {name: again.tokens[name] for name in one.tokens} == one.tokens
        assert again.ask("ada", "abc", max_tokens=2).status_code == 200
        assert again.ask("cleo", "abc", max_tokens=2).status_code == 200
    finally:
        again.close()


def test_the_lecturer_sees_who_is_there_and_a_student_only_himself(open_class: MakeClass):
    one = open_class(tokens_per_minute=1000)
    one.ask("ada", "abc", max_tokens=4)
    assert one.http("bob").get("/class/students").status_code == 403
    rows = {row["name"]: row for row in one.http(LECTURER).get("/class/students").json()["students"]}
    assert rows.keys() == {"ada", "bob"}
    assert (rows["ada"]["asked"], rows["ada"]["prompt_tokens"], rows["ada"]["output_tokens"]) == (1, 3, 4)
    me = one.me("ada")
    assert me["quotas"] == [
        {"name": "in_flight", "used": 0, "limit": 8}, {"name": "tokens_per_minute", "used": 7, "limit": 1000},
    ]  # fmt: skip
    assert (me["me"]["in_flight"], me["ahead"]) == (0, 0)
    shown = str(one.room.students)
    assert shown.startswith("2 of 2 are there") and "0 s ago" in shown


def test_who_asks_too_much_gets_429_with_the_quota_and_the_time_and_others_go_on(open_class: MakeClass):
    one = open_class(step_s=0.005, in_flight=2, tokens_per_minute=50)
    running = [one.ask_meanwhile("ada", "abc", max_tokens=60, ignore_eos=True) for _ in range(2)]
    assert wait_until(lambda: one.me("ada")["me"]["in_flight"] == 2)
    refused = one.ask("ada", "abc", max_tokens=2)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    assert error_of(refused)["param"] == "in_flight" and "the quota is 2" in error_of(refused)["message"]
    assert one.ask("bob", "abc", max_tokens=2).status_code == 200
    assert wait_until(lambda: all(running))
    refused = one.ask("ada", "abc", max_tokens=2)
    assert refused.status_code == 429 and 50 <= int(refused.headers["retry-after"]) <= 60
    assert (error_of(refused)["param"], error_of(refused)["code"]) == ("tokens_per_minute", "quota_exceeded")
    assert "You had 126 tokens in the last minute, the quota is 50." in error_of(refused)["message"]
    assert one.ask("bob", "abc", max_tokens=2).status_code == 200
    assert one.ask(LECTURER, "abc", max_tokens=60).status_code == 200


def test_one_who_goes_away_while_waiting_is_not_counted_any_more(open_class: MakeClass):
    one = open_class(step_s=0.01, at_once=1)
    first = one.ask_meanwhile("ada", "abc", max_tokens=60, ignore_eos=True)
    assert wait_until(lambda: one.room.people.on_engine == 1)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{one.url}/v1/completions", json={"prompt": "x"}, timeout=0.1,
            headers={"Authorization": f"Bearer {one.tokens['bob']}"},
        )  # fmt: skip
    assert wait_until(lambda: one.me("bob")["me"]["in_flight"] == 0)
    assert wait_until(lambda: bool(first)) and first[0].status_code == 200
    assert one.is_idle()
    assert len(one.handle.trace.request_records) == 1


def test_a_student_with_ten_questions_does_not_hold_up_one_with_one(open_class: MakeClass):
    one = open_class(step_s=0.002, at_once=1, in_flight=10)
    many = [one.ask_meanwhile("ada", f"a{number}", max_tokens=20, ignore_eos=True) for number in range(10)]
    assert wait_until(lambda: one.me("ada")["me"]["waiting"] >= 8)
    assert one.ask("bob", "b", max_tokens=20).status_code == 200
    assert sum(map(len, many)) <= 4
    assert wait_until(lambda: all(many))


def test_each_student_sees_his_own_requests_whole_and_of_others_only_how_they_move(open_class: MakeClass):
    one = open_class(step_s=0.005)
    ada, lecturer = Watcher(one, "ada"), Watcher(one, LECTURER)
    one.ask("bob", "bobs own words", max_tokens=8, stop=["zz"], headers={"X-Request-Id": "bobs-request"})
    one.ask("ada", "adas own words", max_tokens=8, headers={"X-Request-Id": "adas-request"})
    for watcher in (ada, lecturer):
        watcher.stop()
    [others] = [request for request in ada.requests if is_other(request)]
    [own] = [request for request in ada.requests if not is_other(request)]
    assert own.request_id.startswith("adas-request") and own.prompt_text == "adas own words" and own.user == "ada"
    assert others.prompt_token_ids == (HIDDEN_ID,) * 14 and others.sampling == {"max_tokens": 8}
    tokens = [token for step in ada.steps for token in step.tokens]
    assert "".join(token.text for token in tokens if token.request_id == own.request_id) == "adas own"
    of_others = [(token.token_id, token.text) for token in tokens if token.request_id == others.request_id]
    assert of_others == [(HIDDEN_ID, "")] * 8
    assert b"bob" not in ada.content
    written = {request_id for step in ada.steps if step.kv is not None for request_id in step.kv.receivers}
    assert written == {own.request_id, others.request_id}
    assert llmlab.Trace.of(ada.records).validate() == []
    told = {request.user: request for request in lecturer.requests}
    assert told["bob"].prompt_text == "bobs own words" and not any(map(is_other, lecturer.requests))
    assert b"bobs own" in lecturer.content


def test_who_comes_late_sees_the_cache_as_it_is_and_nobody_by_name(open_class: MakeClass):
    one = open_class()
    for name in ("ada", "bob"):
        one.ask(name, f"what {name} asks", max_tokens=4)
    watcher = Watcher(one, "ada")
    watcher.stop()
    assert one.http("ada").head("/trace").status_code == 200  # which does not begin to watch
    header = watcher.records[0]
    assert header.kv_at_start is not None and header.kv_at_start.num_used > 0
    assert [is_other(request) for request in watcher.requests] == [False, True]
    assert b"bob" not in watcher.content and header.kv_at_start.receivers == {r.request_id for r in watcher.requests}


@pytest.mark.parametrize("share_prefixes", [False, True])
def test_a_guess_at_somebody_elses_prompt_finds_nothing_in_the_cache(open_class: MakeClass, share_prefixes: bool):
    one = open_class(share_prefixes=share_prefixes)
    one.ask("ada", "the password is mellon, do not tell", max_tokens=2)
    one.ask("bob", "the password is mellon, or is it?", max_tokens=2)
    hits = [step.prefix_hits for step in one.handle.trace.step_records if step.prefix_hits]
    assert bool(hits) == share_prefixes
    one.ask("bob", "the password is mellon, or is it?", max_tokens=2)
    hits = [step.prefix_hits for step in one.handle.trace.step_records if step.prefix_hits]
    assert hits  # one's own prompt is found again


def test_what_was_looked_up_too_often_is_refused_and_answers_go_on(open_class: MakeClass):
    one = open_class()
    assert one.http("ada").post("/detokenize", json={"tokens": [97, 98]}).json()["prompt"] == "ab"
    one.http("ada").post("/tokenize", content=b" " * (2**20))
    for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [97]})):
        response = one.http("ada").post(path, json=body)
        assert (response.status_code, error_of(response)["param"]) == (429, "looked_up")
        assert one.http("bob").post(path, json=body).status_code == 200
    assert one.ask("ada", "abc", max_tokens=2).status_code == 200


def test_a_vocabulary_that_is_what_others_have_sent_is_not_told(open_class: MakeClass):
    one = open_class()
    one.handle.header = msgspec.structs.replace(one.handle.header, source="simulated")
    for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [97]})):
        response = one.http("ada").post(path, json=body)
        assert response.status_code == 400 and "what others have sent" in error_of(response)["message"]


def test_an_id_that_somebody_else_has_used_is_not_told(open_class: MakeClass):
    one = open_class()
    answers = [one.ask(name, "abc", max_tokens=1, headers={"X-Request-Id": "same"}) for name in ("ada", "bob")]
    assert [answer.headers["x-request-id"] for answer in answers] == ["same", "same"]
    assert all(len(answer.json()["id"]) == len("cmpl-same~123456") for answer in answers)


def test_spoiled_requests_of_a_student_are_refused_or_served_and_the_class_goes_on(open_class: MakeClass):
    one = open_class(num_cells=8192, seqs=64)
    good = [*GOOD, ("/class/me", None), ("/class/students", None)]
    statuses = Wild(one.room.port, one.tokens["ada"], 2, good).statuses(300)
    assert {200, 400, 401, 403, 404} <= statuses.keys() and statuses[200] > 30
    assert wait_until(one.is_idle)
    assert one.ask("bob", "abc", max_tokens=3).json()["choices"][0]["text"] == "abc"
    assert one.me("ada")["me"]["in_flight"] == 0


def test_a_class_that_stops_ends_who_waits_and_who_watches(open_class: MakeClass):
    one = open_class(step_s=0.02, at_once=1)
    watcher = Watcher(one, "ada")
    asked = [one.ask_meanwhile("bob", "abc", **LONG) for _ in range(2)]
    assert wait_until(lambda: one.room.people.waiting == 1)
    one.room.stop()
    assert wait_until(lambda: all(asked))
    assert sorted(error_of(answer[0])["code"] for answer in asked) == ["stopped", "stopped"]
    watcher._thread.join(5)
    assert not watcher._thread.is_alive()


@pytest.mark.slow
def test_sixty_students_are_served_none_is_starved_and_nobody_sees_anothers_text(open_class: MakeClass):
    one = open_class(step_s=0.002, seqs=16, num_cells=2048, students=61, tokens_per_minute=100_000)
    *students, flooder = one.students(61)

    async def lesson() -> None:
        flooding = asyncio.create_task(flood(one.url, flooder, 30, max_tokens=20))
        await attend(one.url, students, within_s=1.0, max_tokens=20)
        await flooding

    asyncio.run(lesson())
    assert lost(students) == []
    assert worst_over_median(students) <= 3
    assert list(leaks([*students, flooder])) == []
    assert all(len(student.seen) > 10_000 for student in students)
    assert {asked.status for asked in flooder.asked} == {200, 429}
    assert all(asked.retry_after for asked in flooder.asked if asked.status == 429)
    assert one.me(flooder.name)["me"]["refused"] == sum(asked.status == 429 for asked in flooder.asked)
    assert wait_until(one.is_idle)
    trace = one.handle.trace
    assert trace.validate() == []
    flooders = {request.request_id for request in trace.request_records if request.user == flooder.name}
    assert max(len(flooders & {row.request_id for row in step.scheduled}) for step in trace.step_records) <= 8


def test_the_search_for_leaks_finds_each_kind_of_leak():
    ada, bob = Student("ada", "t", "一" * 6), Student("bob", "t", "丁" * 6)
    own = b'{"request_id":"bob.q","arrival_s":0,"prompt_token_ids":[1,2,3]}\n'
    bob.seen = own
    ada.asked = [Asked("ada.q", 0.0, text="一一一一一一!", prompt_token_ids=[10, 11, 12, 13, 14])]
    ada.asked[0].token_ids = [20, 21, 22, 23, 24]
    bob.asked = [Asked("bob.q", 0.0)]
    assert list(leaks([ada, bob])) == []
    for leak in (
        '{"x":"一一一一一一"}\n'.encode(), b'{"user":"ada"}\n',
        b'{"x":[9,10,11,12,13,14]}\n', b'{"x":[20,21,22,23,24,25]}\n',
        b'{"request_id":"*1","prompt_token_ids":[7],"whose":"other"}\n', b'{"request_id":"x","prompt_token_ids":[7]}\n',
        b'{"step":1,"tokens":[{"request_id":"*1","token_id":5}]}\n',
    ):  # fmt: skip
        bob.seen = own + leak
        assert list(leaks([ada, bob])), leak


def test_among_two_hundred_students_each_leak_is_told_with_who_saw_it_and_whose_it_is():
    shared = ['{"request_id":"*1","prompt_token_ids":[2147483648],"whose":"other"}']
    shared += [f'{{"step":{i},"tokens":[{{"request_id":"*1","token_id":2147483648}}]}}' for i in range(50)]
    told, students = {}, []
    for i in range(200):
        name, secret = f"s{i:03}", chr(0x4E00 + i) * 3
        asked = Asked(f"{name}.q", 0.0, prompt_token_ids=[1000 + i, 7, 8], token_ids=[9, 2000 + i, 7])
        students.append(Student(name, "t", secret, [asked]))
        own = [f'{{"request_id":"{name}.q","prompt_token_ids":[{1000 + i},7,8],"prompt_text":"{secret}"}}']
        own += [f'{{"step":50,"tokens":[{{"request_id":"{name}.q","token_id":9,"text":"{secret}"}}]}}']
        told[name] = [*shared, *own]

    def found() -> list[str]:
        for student in students:
            seen = "\n".join([*told[student.name], student.secret]).encode()
            student.seen = seen[:-1]  # the stream was cut within a character
        return sorted(leaks(students))

    assert found() == []
    told["s003"].append('{"x":"一丁丁丁一"}')
    told["s005"].append('{"user":"s198"}')
    told["s008"].append('{"x":[5,1009,7,8,5]}')
    told["s013"].append('{"x":[9,2199,7]}')
    told["s021"].append('{"request_id":"*2","prompt_token_ids":[7],"whose":"other"}')
    told["s034"].append('{"request_id":"*3","prompt_token_ids":[2147483648],"whose":"other","prompt_text":"x"}')
    told["s055"].append('{"request_id":"r","prompt_token_ids":[7]}')
    told["s089"].append('{"step":51,"tokens":[{"request_id":"r","token_id":2147483648}]}')
    told["s144"].append('{"step":51,"tokens":[{"request_id":"*1","token_id":5}]}')
    told["s198"].append('{"step":51,"tokens":[{"request_id":"*1","token_id":2147483648,"text":"x"}]}')
    for name in ("s100", "s101"):  # one line that two saw
        told[name].append('{"x":"丂丂丂","y":"s199"}')
    assert found() == [
        f"s003 saw the secret of s001: {'丁丁丁'.encode()!r}",
        "s005 saw the name of s198: b's198'",
        "s008 saw the token ids of s009: b'1009,7,8'",
        "s013 saw the token ids of s199: b'9,2199,7'",
        "s021 saw the prompt of *2",
        "s034 saw the prompt of *3",
        "s055 saw r whole",
        "s089 saw a token of r",
        "s100 saw the name of s199: b's199'",
        f"s100 saw the secret of s002: {'丂丂丂'.encode()!r}",
        "s101 saw the name of s199: b's199'",
        f"s101 saw the secret of s002: {'丂丂丂'.encode()!r}",
        "s144 saw what came of *1",
        "s198 saw what came of *1",
    ]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"students": ["a", "a"]}, "is there twice"), ({"in_flight": 0}, "in_flight is 0"),
        ({"hub": True}, "JUPYTERHUB|jupyterhub"), ({"port": 70_000}, "Nothing can listen"),
        ({"tls_cert": "cert.pem"}, "TLS needs both"),
    ],
)  # fmt: skip
def test_a_class_that_cannot_be_says_why(
    open_class: MakeClass, wrong: dict[str, object], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("JUPYTERHUB_API_URL", raising=False)
    handle = open_class().handle
    with pytest.raises(EngineError, match=says):
        llmlab.classroom(handle, folder=tmp_path / "other", **{"students": ["ada"], **wrong})  # type: ignore[arg-type]
    assert not (tmp_path / "other" / "tokens.csv").exists()  # who was to be in it is not in the next one
