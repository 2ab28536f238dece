"""Who is in a class, and whose token a token is: also after a restart, and for who has lost one."""

from __future__ import annotations

import hmac
import json
import os
from pathlib import Path

import pytest
from class_support import tokens_in

from llmlab.classroom.names import LECTURER, names_of
from llmlab.classroom.register import Person, Register
from llmlab.errors import EngineError


@pytest.fixture
def register(tmp_path: Path) -> Register:
    register = Register(tmp_path / "class")
    register.add(["ada", "bob"])
    return register


def test_each_student_gets_a_token_once_and_only_hashes_are_kept(register: Register):
    tokens = tokens_in(register.folder)
    assert list(tokens) == ["ada", "bob"]
    assert min(map(len, tokens.values())) >= 32 and tokens["ada"] != tokens["bob"]
    kept = (register.folder / "register.json").read_text()
    assert not any(token in kept for token in [*tokens.values(), register.lecturer_token])
    assert register.lecturer_token not in (register.folder / "tokens.csv").read_text()


def test_nobody_else_may_read_its_files(register: Register):
    assert register.folder.stat().st_mode & 0o777 == 0o700
    files = sorted(register.folder.iterdir())
    assert [file.name for file in files] == [".gitignore", "lecturer.token", "register.json", "tokens.csv"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_token_says_who_it_is(register: Register):
    tokens = tokens_in(register.folder)
    assert register.person(tokens["bob"].encode()) == Person("bob")
    assert register.person(register.lecturer_token.encode()) == Person(LECTURER, is_lecturer=True)
    for stranger in (b"", b"x", b"\xff\xfe", tokens["bob"][:-1].encode(), tokens["bob"].encode() + b"x"):
        assert register.person(stranger) is None


def test_every_hash_is_compared_by_the_function_that_takes_equally_long(
    register: Register, monkeypatch: pytest.MonkeyPatch
):
    compared: list[str] = []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append(a) or compare(a, b))
    register.person(tokens_in(register.folder)["ada"].encode())
    assert len(compared) == 3  # two students and the lecturer, though the first was the one


def test_a_restart_changes_no_token_and_who_is_new_gets_one(register: Register):
    before, lecturer = tokens_in(register.folder), register.lecturer_token
    again = Register(register.folder)
    assert again.add(["bob", "cleo", "ada"]) == ["cleo"]
    assert again.names == ["ada", "bob", "cleo"] and again.lecturer_token == lecturer
    after = tokens_in(register.folder)
    assert after.keys() == {"ada", "bob", "cleo"} and {name: after[name] for name in before} == before


def test_once_the_list_was_handed_out_and_deleted_it_has_only_who_came_later(register: Register):
    token = tokens_in(register.folder)["ada"]
    (register.folder / "tokens.csv").unlink()
    register.add(["cleo"])
    assert list(tokens_in(register.folder)) == ["cleo"]
    assert register.person(token.encode()) == Person("ada")


def test_who_lost_a_token_gets_another_while_the_class_runs(register: Register):
    running = Register(register.folder)
    old = tokens_in(register.folder)["ada"]
    new = register.new_token("ada")
    assert running.person(old.encode()) is None
    assert running.person(new.encode()) == Person("ada")
    assert tokens_in(register.folder)["ada"] == new


def test_who_is_removed_is_out_while_the_class_runs(register: Register):
    running, token = Register(register.folder), tokens_in(register.folder)["ada"]
    register.remove("ada")
    assert running.person(token.encode()) is None and running.names == ["bob"]


def test_a_lecturers_token_that_was_lost_is_made_again(register: Register):
    old = register.lecturer_token
    (register.folder / "lecturer.token").unlink()
    again = Register(register.folder)
    assert again.lecturer_token != old and again.person(old.encode()) is None
    assert again.person(again.lecturer_token.encode()) == Person(LECTURER, is_lecturer=True)


def test_a_stranger_and_a_broken_file_are_told(register: Register):
    with pytest.raises(EngineError, match="Did you mean 'ada'"):
        register.new_token("adaa")
    with pytest.raises(EngineError, match="A class has a lecturer"):
        register.remove(LECTURER)
    (register.folder / "register.json").write_text(json.dumps({"schema": "something/1"}))
    with pytest.raises(EngineError, match="no register of a class"):
        Register(register.folder)


@pytest.mark.parametrize("content", ["name;token\nada;x\n", "ada,x\n", "name,token\nada\n", "name,token\n\xc9mile,x\n"])
def test_a_list_of_tokens_that_somebody_has_changed_is_told_and_no_token_is_lost(register: Register, content: str):
    old = tokens_in(register.folder)
    (register.folder / "tokens.csv").write_text(content, encoding="latin-1")
    kept = (register.folder / "register.json").read_bytes()
    for change in (lambda: register.new_token("ada"), lambda: register.add(["cleo"])):
        with pytest.raises(EngineError, match=r"tokens\.csv does not have a name, a comma and a token.* Move it away"):
            change()
    assert (register.folder / "tokens.csv").read_text(encoding="latin-1") == content
    assert (register.folder / "register.json").read_bytes() == kept
    assert register.person(old["ada"].encode()) == Person("ada") and register.names == ["ada", "bob"]


def test_a_list_of_tokens_that_a_spreadsheet_has_saved_is_read(register: Register):
    old = tokens_in(register.folder)
    rows = "".join(f"{name},{token}\r\n" for name, token in old.items())
    (register.folder / "tokens.csv").write_text(f"name,token\r\n{rows}", encoding="utf-8-sig", newline="")
    register.add(["cleo"])
    assert {name: token for name, token in tokens_in(register.folder).items() if name != "cleo"} == old


def test_who_cannot_be_written_down_is_told_and_gets_no_token(register: Register):
    (register.folder / "tokens.csv").unlink()
    (register.folder / "tokens.csv").mkdir()
    with pytest.raises(EngineError, match="The class cannot be kept in"):
        register.add(["cleo"])
    assert register.names == ["ada", "bob"]


def test_a_register_that_cannot_be_read_any_more_leaves_a_running_class_as_it_is(register: Register):
    token = tokens_in(register.folder)["ada"]
    (register.folder / "register.json").unlink()
    (register.folder / "register.json").mkdir()
    assert register.person(token.encode()) == Person("ada") and register.names == ["ada", "bob"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_changes_belongs_to_who_runs_the_class(register: Register):
    os.chown(register.folder, 65534, 65534)
    register.new_token("ada")
    register.new_token(LECTURER)
    for name in ("register.json", "tokens.csv", "lecturer.token"):
        status = (register.folder / name).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (65534, 65534, 0o600), name


def test_one_name_has_one_token_however_it_is_typed(register: Register):
    register.add(names_of(["E\u0301mile"]))
    assert register.names[-1] == "\u00c9mile"
    register.remove("E\u0301mile")
    assert register.names == ["ada", "bob"]


def test_made_up_names_are_the_same_in_a_class_that_has_grown():
    assert set(names_of(9)) < set(names_of(12)) < set(names_of(1200))


def test_students_are_a_number_names_or_a_file(tmp_path: Path):
    file = tmp_path / "students.txt"
    file.write_text("ada\n# second year\n  bob  # repeats\n\nÉmilie Noether\n", encoding="utf-8")
    assert names_of(file) == names_of(str(file)) == ["ada", "bob", "Émilie Noether"]
    file.write_bytes("\ufeffada\r\n\r\nbob\r\n".encode())
    assert names_of(file) == ["ada", "bob"]
    assert names_of("10") == names_of(10) and names_of(10)[0] == "student001" and names_of(10)[-1] == "student010"


@pytest.mark.parametrize(
    ("students", "says"),
    [
        (0, "1 to 5000 students"),
        (["ada", "ada"], "'ada' is there twice"),
        (["a,b"], "is no name of a student"),
        (["lecturer"], "is no name of a student"),
        (["=x;y"], "is no name of a student"),
        (["x" * 65], "is no name of a student"),
        ("nowhere.txt", "'nowhere.txt' cannot be read"),
    ],
)
def test_what_is_no_list_of_students_is_told(students: object, says: str):
    with pytest.raises(EngineError, match=says):
        names_of(students)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"ada\n\nbob\nada\n", "line 4: 'ada' is there twice"),
        ("E\u0301mile\n\u00c9mile\n".encode(), "line 2: '\u00c9mile' is there twice"),
        (b"ada\nbob,bob@example.org\n", "line 2: 'bob,bob@example.org' is no name"),
        (b"# nobody yet\n\n", "students.txt has no name in it"),
        ("ada\n".encode("utf-16"), "students.txt is no text in UTF-8. Save it as one"),
        ("\u00c9mile\n".encode("latin-1"), "students.txt is no text in UTF-8"),
    ],
)
def test_a_file_that_is_no_list_of_students_is_told_with_the_line(content: bytes, says: str, tmp_path: Path):
    (tmp_path / "students.txt").write_bytes(content)
    with pytest.raises(EngineError, match=says):
        names_of(tmp_path / "students.txt")
