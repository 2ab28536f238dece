"""A conversation belongs to cells: no turn is hidden, none comes twice."""

from __future__ import annotations

from types import SimpleNamespace

from llmlab.magics.chat import CellNames, Chat


def said(chat: Chat, cell: str, prompt: str) -> list[str]:
    return [message["content"] for message in chat.messages(cell, prompt)]


def test_running_a_cell_again_replaces_its_own_turn_and_keeps_the_later_ones():
    chat = Chat()
    for cell, prompt, answer in (("a", "one", "1"), ("b", "two", "2"), ("c", "three", "3")):
        chat.record(cell, prompt, answer)
    assert said(chat, "b", "TWO") == ["one", "1", "TWO"]
    chat.record("b", "TWO", "II")
    assert said(chat, "d", "four") == ["one", "1", "TWO", "II", "three", "3", "four"]


def test_the_system_message_comes_first_and_is_no_turn():
    chat = Chat()
    chat.record("a", "one", "1")
    assert chat.messages("b", "two", system="be brief")[0] == {"role": "system", "content": "be brief"}
    assert list(chat.turns) == ["a"]


class Shell(SimpleNamespace):
    """A shell in a kernel, in the middle of an execution."""

    kernel = True
    execution_count = 1

    def get_parent(self) -> dict[str, object]:
        return {"header": {"msg_id": self.message}, "metadata": self.metadata}


def test_a_cell_keeps_its_names_when_it_runs_again():
    shell = Shell(message="m1", metadata={"cellId": "c1"})
    names = CellNames(shell)
    first = [names.next(), names.next()]
    shell.message = "m2"
    assert first == [names.next(), names.next()]
    assert len(set(first)) == 2


def test_without_cell_ids_every_execution_is_a_turn_of_its_own():
    shell = Shell(message="m1", metadata={})
    names = CellNames(shell)
    first = names.next()
    shell.message, shell.execution_count = "m2", 2
    assert names.next() != first
