"""Turns: places on the engine, given one by one: next is the student who has had least.

What waits, waits here and not on the engine, which would take requests in the order in which they come. This file must
not know HTTP or engines. One thread, that of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools

from llmlab.classroom.quotas import Account
from llmlab.serve.failures import ApiError

NEWEST = 0.1  # how much the newest answer counts in the mean


class Turn:
    """The place of `count` answers in the line, then on the engine. Made by Turns.line_up(); leave it at the end."""

    def __init__(self, turns: Turns, account: Account, count: int, number: int) -> None:
        self.account, self.count, self.number = account, count, number  # number: in the order in which they came
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns = turns

    async def wait(self) -> None:
        """Until it is called. Who is cancelled meanwhile has left. Raises: ApiError when the server stops."""
        try:
            await self.called
        except asyncio.CancelledError:
            self.leave()
            raise
        if self._turns.is_closed:
            self.leave()
            raise _closed()

    def give_up(self) -> None:
        """Nobody waits for it any more: wait() raises CancelledError. Does nothing once it was called."""
        self.called.cancel()

    def leave(self, cost: float | None = None) -> None:
        """It has ended on the engine. `cost`: its weighted tokens; None: it never got there. Call it once."""
        self._turns._end(self, cost)


class Turns:
    """`num_places`: answers that are on the engine at once.

    Each student has a line of his own. Its first goes on when his weighted tokens, with what his answers on the engine
    will have cost by their end (as much as answers cost lately), are the fewest of all who wait. Who comes back after a
    rest begins with as much as the least of those who are there: nobody saves turns up. When the engine has stood idle,
    all begin anew: nobody was kept from anything.

    Source: virtual token counters, Sheng et al., Fairness in Serving Large Language Models (OSDI 2024), algorithm 2.
    """

    def __init__(self, num_places: int) -> None:
        self.num_places, self.num_on = num_places, 0
        self.is_closed = False
        self._lines: dict[Account, list[Turn]] = {}  # who waits
        self._on: dict[Account, int] = {}  # who is on the engine, with how many answers
        self._known: set[Account] = set()  # who has been there since it stood idle
        self._numbers = itertools.count()
        self._mean_cost = 1.0
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def num_waiting(self) -> int:
        return sum(turn.count for line in self._lines.values() for turn in line)

    def line_up(self, account: Account, count: int) -> Turn:
        """Then wait() for it. Raises: ApiError when the server stops."""
        if self.is_closed:
            raise _closed()
        self._loop = asyncio.get_running_loop()
        self._lift(account)
        turn = Turn(self, account, count, next(self._numbers))
        self._lines.setdefault(account, []).append(turn)
        account.num_waiting += count
        self._call()
        return turn

    def close(self) -> None:
        """Nobody goes on any more: who waits is told. From any thread."""
        self.is_closed = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._call)

    def ahead_of(self, account: Account) -> int:
        """Students whose first in line goes before his first, as things are; 0 when nothing of his waits."""
        if account not in self._lines:
            return 0
        mine = self._due(account)
        return sum(self._due(other) < mine for other in self._lines)

    # ---- who is next

    def _call(self) -> None:
        """Let go on whoever there is a place for."""
        while self._lines:
            account = min(self._lines, key=self._due)
            turn = self._lines[account][0]
            # one that is larger than the engine goes alone
            if self.num_on and self.num_on + turn.count > self.num_places and not self.is_closed:
                return
            self._take_out(turn)
            if turn.called.cancelled():
                continue
            self.num_on += turn.count
            account.num_on += turn.count
            self._on[account] = self._on.get(account, 0) + turn.count
            turn.called.set_result(None)

    def _due(self, account: Account) -> tuple[float, int]:
        return account.had + account.num_on * self._mean_cost, self._lines[account][0].number

    def _lift(self, account: Account) -> None:
        there = self._lines.keys() | self._on.keys()
        if not there:
            for one in self._known:
                one.had = 0.0
            self._known.clear()
        elif account not in there:
            account.had = max(account.had, min(other.had for other in there))
        self._known.add(account)

    def _take_out(self, turn: Turn) -> None:
        line = self._lines[turn.account]
        line.remove(turn)
        turn.account.num_waiting -= turn.count
        if not line:
            del self._lines[turn.account]

    def _end(self, turn: Turn, cost: float | None) -> None:
        account = turn.account
        if turn in self._lines.get(account, ()):
            self._take_out(turn)
        elif not turn.called.cancelled():
            self.num_on -= turn.count
            account.num_on -= turn.count
            self._on[account] -= turn.count
            if not self._on[account]:
                del self._on[account]
        if cost is not None:
            self._mean_cost += NEWEST * (cost / turn.count - self._mean_cost)
        self._call()


def _closed() -> ApiError:
    return ApiError(503, "The class has ended: its server stops.", code="stopped")
