"""One engine for a class: 60 students, real HTTP clients, ask 3 things each within 20 s and watch the batch meanwhile.

    python -m benchmarks.bench_class
    python -m benchmarks.bench_class --students 200 --rounds 1

One process holds the engine and the class; this one is the students. In every second round one more student floods: he
asks 100 things at once, and does not wait when he is told to.
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

NUM_STUDENTS, NUM_PLACES, NUM_TOKENS, NUM_FLOODED = 60, 16, 24, 100
TOKENS_PER_MINUTE = 400
MAX_RATIO = 3.0
# no two rounds ask alike
SECRETS = [chr(0x4E00 + number) * 3 for number in range(20_000)]


def class_server(quant: str, folder: str, num_students: int) -> None:
    """The process with the engine."""
    import llmlab

    engine = llmlab.load(
        "smollm2-135m", engine="llamacpp", quant=quant, seqs=NUM_PLACES, options={"threads": NUM_THREADS}
    )
    room = llmlab.classroom(engine, students=num_students + 1, folder=folder, tokens_per_minute=TOKENS_PER_MINUTE)

    def answer(question: dict[str, Any]) -> Any:
        if question["ask"] == "where":
            return room.url
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


def measure(quant: str, rounds: int, num_students: int) -> tuple[list[Lesson], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(__file__, "--server", "--quant", quant, "--folder", folder, "--students", str(num_students))
        url = worker.ask({"ask": "where"})
        with (Path(folder) / "tokens.csv").open(newline="") as file:
            tokens = {row["name"]: row["token"] for row in csv.DictReader(file)}
        lessons = []
        for number in range(2 * rounds):
            lessons.append(asyncio.run(lesson(url, tokens, number, with_flood=bool(number % 2))))
            after = worker.ask({"ask": "after"})
            print(
                f"round {number}: {lessons[-1].took_s:.1f} s, ratio {worst_over_median(lessons[-1].students):.2f}",
                flush=True,
            )
        worker.close()
        return lessons, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="without and with one who floods, so many times each")
    parser.add_argument("--students", type=int, default=NUM_STUDENTS, help="results are class.md, or class_of_N.md")
    parser.add_argument("--quant", default="Q4_1")
    parser.add_argument("--server", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.server:
        class_server(arguments.quant, arguments.folder, arguments.students)
        return
    gguf(arguments.quant)
    lessons, after = measure(arguments.quant, arguments.rounds, arguments.students)
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
        Bound("answers to the flooder, most in a round (in flight: 8)", max(answered), 8, at_least=False),
        Bound("every refusal says when to come again (1 = yes)", float(in_time), 1),
        Bound("left open, failed or broken in the trace", _left(after), 0, at_least=False),
    ]
    write(
        "class" if arguments.students == NUM_STUDENTS else f"class_of_{arguments.students}",
        f"A class of {arguments.students} on one engine: {NUM_ASKS} requests each within {WITHIN_S:g} s, {NUM_TOKENS} "
        f"tokens an answer (llama.cpp {arguments.quant}, {NUM_THREADS} threads, {NUM_PLACES} at once)",
        series,
        bounds,
        [
            f"Quotas: 8 answers in flight and {TOKENS_PER_MINUTE} tokens a minute. All students watch GET /trace; "
            "what they saw is searched for secrets, names, request ids and token ids of the others."
        ],
    )


def _rate(one: Lesson) -> float:
    everybody = one.students + ([one.flooder] if one.flooder is not None else [])
    return sum(len(asked.token_ids) for student in everybody for asked in student.asked) / one.took_s


def _seen_kb(one: Lesson) -> float:
    return statistics.median(len(student.seen) for student in one.students) / 1e3


def _left(after: dict[str, Any]) -> float:
    return after["open"] + len(after["failures"]) + len(after["violations"])


if __name__ == "__main__":
    main()
