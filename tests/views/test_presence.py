"""Whether a page shows a live view: what its silence means."""

from __future__ import annotations

import threading

import pytest

from llmlab.views import presence
from llmlab.views.presence import Presence


class Pages:
    """Presence with a clock that is set by hand, in a kernel whose main thread may be busy with a cell."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(presence, "PATIENCE_S", 90.0)
        self.now_s, self.is_cell_running = 1000.0, False
        self.presence = Presence(lambda: self.is_cell_running, lambda: self.now_s)

    def pass_s(self, seconds: int) -> bool:
        """So long nobody speaks, and Presence is asked each second. Whether a page is there at the end."""
        for _ in range(seconds):
            self.now_s += 1
            self.presence.is_there()
        return self.presence.is_there()

    def speak(self, *, in_main_thread: bool = True) -> None:
        if in_main_thread:
            self.presence.heard()
            return
        thread = threading.Thread(target=self.presence.heard)
        thread.start()
        thread.join()


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    return Pages(monkeypatch)


def test_a_page_that_is_silent_for_so_long_is_gone_until_it_speaks(pages: Pages):
    pages.speak()
    assert pages.pass_s(89)
    assert not pages.pass_s(1) and not pages.pass_s(500)
    pages.speak()
    assert pages.pass_s(89)


def test_a_hidden_tab_that_may_speak_once_a_minute_is_there(pages: Pages):
    for _ in range(5):
        pages.speak()
        assert pages.pass_s(60)


def test_a_view_that_no_page_ever_showed_is_not_sent_to_for_ever(pages: Pages):
    assert pages.pass_s(89) and not pages.pass_s(1)


def test_a_page_that_cannot_be_heard_while_a_cell_runs_is_not_taken_for_gone(pages: Pages):
    pages.speak()
    pages.pass_s(50)
    pages.is_cell_running = True
    assert pages.pass_s(3600)
    pages.is_cell_running = False  # what it said waits, and is heard now; it has not said anything:
    assert pages.pass_s(89) and not pages.pass_s(1)


def test_a_page_that_is_heard_while_a_cell_runs_is_gone_when_it_is_silent(pages: Pages):
    pages.is_cell_running = True
    pages.speak(in_main_thread=False)
    assert pages.pass_s(89) and not pages.pass_s(1)


def test_a_page_that_was_gone_before_a_cell_began_stays_gone(pages: Pages):
    assert not pages.pass_s(90)
    pages.is_cell_running = True
    assert not pages.pass_s(1)
