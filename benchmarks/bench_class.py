"""One engine for a class: 60 students, real HTTP clients, ask 3 things each within 20 s and watch the batch meanwhile.

    python -m benchmarks.bench_class
    python -m benchmarks.bench_class --students 200 --rounds 1
    python -m benchmarks.bench_class --engine vllm --places 64     # one GPU

One process holds the engine and the class; this one is the students. In every second round one more student floods: he
asks 100 things at once, and does not wait when he is told to. Rounds begin a minute apart at least: a student's quota
of tokens, which is of a minute, is never used up by the rounds before.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")

from benchmarks.bench_llamacpp_throughput import NUM_THREADS, gguf
from benchmarks.class_of_students import NUM_ASKS, WITHIN_S, Student, attend, flood, leaks, lost, worst_over_median
from benchmarks.harness import Bound, Series, write
from benchmarks.worker import Worker, answer_questions
from llmlab.trace import Header

NUM_STUDENTS, NUM_PLACES, NUM_TOKENS, NUM_FLOODED = 60, 16, 24, 100
IN_FLIGHT, TOKENS_PER_MINUTE, ROUND_S = 8, 400, 60.0
MAX_RATIO = 3.0
TITLES = {"llamacpp": "llama.cpp", "vllm": "vLLM"}
# no two rounds ask alike
SECRETS = [chr(0x4E00 + number) * 3 for number in range(20_000)]


def class_server(engine_name: str, quant: str, num_places: int, folder: str, num_students: int) -> None:
    """The process with the engine."""
    import llmlab

    loaded: dict[str, dict[str, Any]] = {
        "llamacpp": {"quant": quant, "options": {"threads": NUM_THREADS}},
        "vllm": {"dtype": "bfloat16"},
    }
    engine = llmlab.load("smollm2-135m", engine=engine_name, seqs=num_places, **loaded[engine_name])
    room = llmlab.classroom(
        engine,
        students=num_students + 1,
        folder=folder,
        in_flight=IN_FLIGHT,
        tokens_per_minute=TOKENS_PER_MINUTE,
    )

    def answer(question: dict[str, Any]) -> Any:
        if question["ask"] == "where":
            return {"url": room.url, "engine": described(engine.header)}
        while engine.num_open_requests:
            time.sleep(0.01)
        trace = engine.trace
        return {
            "open": room.num_open,
            "failures": room.failures,
            "violations": [str(violation) for violation in trace.validate()],
            "tokens": {row.name: row.prompt_tokens + row.output_tokens for row in room.people.students},
        }

    answer_questions(answer)
    room.stop()
    engine.unload()


def described(header: Header) -> str:
    """Engine, weights, what computes, places.

    >>> described(Header(engine="llamacpp", quant="Q4_1", num_threads=2, max_num_seqs=16))
    'llama.cpp Q4_1, 2 threads, 16 at once'
    >>> described(Header(engine="vllm", dtype="bfloat16", device="NVIDIA H200", max_num_seqs=64))
    'vLLM bfloat16, NVIDIA H200, 64 at once'
    """
    num = header.num_threads
    computes = header.device if num is None else f"{num} thread{'s' if num > 1 else ''}"
    return f"{TITLES[header.engine]} {header.quant or header.dtype}, {computes}, {header.max_num_seqs} at once"


@dataclass
class Lesson:
    """What came of one round."""

    students: list[Student]
    flooder: Student | None
    took_s: float
    num_lost: int = 0
    leaks: list[str] = field(default_factory=list)


async def lesson(url: str, tokens: dict[str, str], number: int, *, with_flood: bool) -> Lesson:
    names = sorted(tokens)
    secrets = SECRETS[number * len(names) :]
    everybody = [Student(name, tokens[name], secrets[index]) for index, name in enumerate(names)]
    students, flooder = everybody[:-1], everybody[-1]
    fields = {"max_tokens": NUM_TOKENS, "ignore_eos": True}
    started = time.monotonic()
    flooding = asyncio.create_task(flood(url, flooder, NUM_FLOODED, **fields)) if with_flood else None
    await attend(url, students, seed=number, **fields)
    if flooding is not None:
        await flooding
    took_s = time.monotonic() - started
    told = students if flooding is None else everybody
    return Lesson(students, flooder if with_flood else None, took_s, len(lost(students)), list(leaks(told)))


@dataclass
class Measured:
    """`engine`: described() of what served. `after`: what the class said when all was over."""

    engine: str
    lessons: list[Lesson]
    after: dict[str, Any]


def measure(arguments: argparse.Namespace) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        flags = {name: getattr(arguments, name) for name in ("engine", "quant", "places", "students")}
        told = [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        worker = Worker(__file__, "--server", "--folder", folder, *told)
        where = worker.ask({"ask": "where"})
        with (Path(folder) / "tokens.csv").open(newline="") as file:
            tokens = {row["name"]: row["token"] for row in csv.DictReader(file)}
        lessons: list[Lesson] = []
        for number in range(2 * arguments.rounds):
            if lessons:
                time.sleep(max(0.0, ROUND_S - lessons[-1].took_s))
            lessons.append(asyncio.run(lesson(where["url"], tokens, number, with_flood=bool(number % 2))))
            after = worker.ask({"ask": "after"})
            print(
                f"round {number}: {lessons[-1].took_s:.1f} s, ratio {worst_over_median(lessons[-1].students):.2f}",
                flush=True,
            )
        worker.close()
        return Measured(where["engine"], lessons, after)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="without and with one who floods, so many times each")
    parser.add_argument("--students", type=int, default=NUM_STUDENTS, help="results are class.md, or class_of_N.md")
    parser.add_argument("--engine", choices=TITLES, default="llamacpp", help="vllm: results are class_vllm.md, ...")
    parser.add_argument("--places", type=int, default=NUM_PLACES, help="answers on the engine at once")
    parser.add_argument("--quant", default="Q4_1", help="of llama.cpp; vLLM computes in bfloat16")
    parser.add_argument("--server", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.server:
        class_server(arguments.engine, arguments.quant, arguments.places, arguments.folder, arguments.students)
        return
    if arguments.engine == "llamacpp":
        gguf(arguments.quant)  # made before anybody's time counts
    measured = measure(arguments)
    lessons, after = measured.lessons, measured.after
    calm, flooded = lessons[::2], lessons[1::2]
    series = []
    for name, some in (("calm", calm), ("beside a flood", flooded)):
        waits = [student.wait_s for one in some for student in one.students]
        series += [
            Series(f"{name}: from ask to end, per student", "s", waits),
            Series(
                f"{name}: worst student over median, per round", "", [worst_over_median(one.students) for one in some]
            ),
            Series(f"{name}: tokens of answers", "tok/s", [_rate(one) for one in some]),
            Series(f"{name}: what a student was told of the batch", "kB", [_seen_kb(one) for one in some]),
        ]
    flooders = [one.flooder for one in flooded if one.flooder is not None]
    answered = [sum(asked.status == 200 for asked in flooder.asked) for flooder in flooders]
    series.append(Series(f"flood: answers to who asks {NUM_FLOODED} things at once", "", [float(n) for n in answered]))
    in_time = all(asked.retry_after and asked.error for f in flooders for asked in f.asked if asked.status == 429)
    bounds = [
        Bound("requests lost, of all rounds", sum(one.num_lost for one in lessons), 0, at_least=False),
        Bound("calm: worst student over median, the worst round", max(series[1].values), MAX_RATIO, at_least=False),
        Bound("beside a flood: worst over median, the worst round", max(series[5].values), MAX_RATIO, at_least=False),
        Bound("foreign text, ids or names in what students saw", sum(len(o.leaks) for o in lessons), 0, at_least=False),
        Bound(
            f"answers to the flooder, most in a round ({IN_FLIGHT} in flight after what his minute pays for)",
            max(answered),
            IN_FLIGHT + (TOKENS_PER_MINUTE - 1) // _tokens_of_an_answer(flooders),
            at_least=False,
        ),
        Bound("every refusal says when to come again (1 = yes)", float(in_time), 1),
        Bound("left open, failed or broken in the trace", _left(after), 0, at_least=False),
    ]
    name = "class" if arguments.students == NUM_STUDENTS else f"class_of_{arguments.students}"
    write(
        name if arguments.engine == "llamacpp" else f"{name}_{arguments.engine}",
        f"A class of {arguments.students} on one engine: {NUM_ASKS} requests each within {WITHIN_S:g} s, {NUM_TOKENS} "
        f"tokens an answer ({measured.engine})",
        series,
        bounds,
        [
            f"Quotas: {IN_FLIGHT} answers in flight and {TOKENS_PER_MINUTE} tokens a minute. All students watch "
            "GET /trace; what they saw is searched for secrets, names, request ids and token ids of the others."
        ],
    )


def _rate(one: Lesson) -> float:
    everybody = one.students + ([one.flooder] if one.flooder is not None else [])
    return sum(len(asked.token_ids) for student in everybody for asked in student.asked) / one.took_s


def _tokens_of_an_answer(flooders: list[Student]) -> int:
    """Of the shortest, with its prompt. Raises: ValueError when none was answered."""
    answered = (asked for flooder in flooders for asked in flooder.asked if asked.status == 200)
    return min(len(asked.prompt_token_ids) + len(asked.token_ids) for asked in answered)


def _seen_kb(one: Lesson) -> float:
    return statistics.median(len(student.seen) for student in one.students) / 1e3


def _left(after: dict[str, Any]) -> float:
    return after["open"] + len(after["failures"]) + len(after["violations"])


if __name__ == "__main__":
    main()
