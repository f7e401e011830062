"""`antiphon doctor` as it is typed: what it prints, as JSON and for people, and its exit code."""

from __future__ import annotations

import json
from typing import Any

import pytest
from command_line import run_antiphon

from antiphon.doctor import checks
from antiphon.doctor.examination import Check
from antiphon.doctor.findings import ok, problem, warning

_BAD = problem("it is \x1b[31mred", why="red is not [green]", fix="paint --green")
_POOR = warning("it is old", why="old things break", fix="buy a new one")


def run(*arguments: str, **environment: str) -> Any:
    return run_antiphon("doctor", *arguments, env={"ANTIPHON_PORT": "0", **environment})


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the only check of the machine finds."""
    findings = [ok("it works")]
    monkeypatch.setattr(checks, "machine_checks", lambda *_: [Check("a subject", "a check", lambda: findings)])
    return findings


def test_a_problem_makes_the_exit_code_1(found):
    found.append(_POOR)
    assert run().exit_code == 0
    found.append(_BAD)
    assert run().exit_code == 1
    assert run("--json").exit_code == 1


def test_people_read_what_is_wrong_why_and_how_to_fix_it(found):
    found += [_POOR, _BAD]
    text = run().output
    assert "A subject\n  ✓ it works\n  ! it is old\n    old things break\n    fix: buy a new one\n" in text
    assert "  ✗ it is \\x1b[31mred\n    red is not [green]\n    fix: paint --green\n" in text
    assert text.endswith("1 problem, 1 warning, 0 notes; 1 passed.\n")


def test_an_abbreviation_stays_in_capitals(monkeypatch):
    monkeypatch.setattr(checks, "machine_checks", lambda *_: [Check("gpu", "a check", lambda: [ok("it works")])])
    assert run().output.startswith("GPU\n")


def test_programs_read_the_same_as_json(found):
    found.append(_BAD)
    report = json.loads(run("--json").output)
    assert report["counts"] == {"ok": 1, "note": 0, "warning": 0, "problem": 1}
    assert report["findings"][1] == {
        "subject": "a subject",
        "check": "a check",
        "level": "problem",
        "what": "it is \x1b[31mred",
        "why": "red is not [green]",
        "fix": "paint --green",
    }


def test_this_machine_is_examined_with_the_settings_of_a_server():
    result = run("--json", "--threads", "1000", ANTIPHON_MAX_CONNECTIONS="2000000000", ANTIPHON_HOSTS="::")
    assert result.exit_code == 1
    findings = json.loads(result.output)["findings"]
    assert all(each["level"] == "ok" or (each["why"] and each["fix"]) for each in findings)
    assert not [each for each in findings if "failed" in each["what"]]
    said = "\n".join(each["what"] for each in findings if each["level"] != "ok")
    assert "--threads 1000 is more than this process may use" in said
    assert "instead of 2,000,000,000" in said
    assert "ANTIPHON_HOSTS is not a setting" in said


def test_bad_settings_are_refused():
    assert run("--threads", "-1").exit_code != 0
    assert run("--port", "70000").exit_code != 0
