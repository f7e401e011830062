"""The syntax of `--degrade`: what it means, and what is refused with a message that helps."""

from __future__ import annotations

from typing import Any

import pytest
from command_line import run_antiphon

from antiphon.config import ServerConfig
from antiphon.degrade_rules import (
    DEFAULT_CONDITIONS,
    DEFAULT_LADDER,
    DEFAULT_RULES,
    Condition,
    DegradeRules,
    Limits,
    Shed,
    Signal,
    parse_rules,
)
from antiphon.errors import ConfigError
from antiphon.offline.settings import configs


def test_the_default_lowers_thoughts_first_then_answers_and_refuses_last():
    assert ServerConfig().degrade == DEFAULT_RULES == parse_rules(DEFAULT_LADDER)
    assert [DEFAULT_RULES.limits(level) for level in range(5)] == [
        Limits(),
        Limits(thinking_budget=1024),
        Limits(thinking_budget=512, max_tokens=1024),
        Limits(thinking_budget=512, max_tokens=1024, shed=Shed.FLEX),
        Limits(thinking_budget=512, max_tokens=1024, shed=Shed.ALL),
    ]


def test_a_rule_with_conditions_of_its_own_is_one_line():
    (step,) = parse_rules("memory>90%,timeouts>=3: max_tokens=512,temperature=0.3").steps
    assert step.limits == Limits(max_tokens=512, temperature=0.3)
    assert step.conditions == (Condition(Signal.MEMORY, 0.9, is_strict=True), Condition(Signal.TIMEOUTS, 3.0))
    assert step.holds({Signal.MEMORY: 0.91})
    assert step.holds({Signal.TIMEOUTS: 3})
    assert not step.holds({Signal.MEMORY: 0.9, Signal.TIMEOUTS: 2, Signal.WAIT: 9.0})


def test_a_step_without_conditions_has_the_default_ones():
    (step,) = parse_rules("max_tokens=512").steps
    assert step == parse_rules(f"{DEFAULT_CONDITIONS}: max_tokens=512").steps[0]


def test_a_condition_is_over_below_five_sixths_of_its_threshold():
    (condition, *_) = parse_rules("kv>90%: shed=all").steps[0].conditions
    assert [condition.holds({Signal.KV: value}) for value in (0.89, 0.9, 0.91)] == [False, False, True]
    assert [condition.is_over({Signal.KV: value}) for value in (0.75, 0.76)] == [True, False]
    assert condition.is_over({})


def test_rules_are_shown_as_they_were_written():
    assert str(DEFAULT_RULES) == DEFAULT_LADDER
    assert str(parse_rules("off")) == "off"


@pytest.mark.parametrize("text", ["off", " OFF ", "0", "false"])
def test_off_has_no_steps(text):
    assert parse_rules(text) == DegradeRules()


def test_blanks_and_other_names_are_accepted():
    assert parse_rules(" wait > 50 % :  thinking_token_budget = 100 ") == parse_rules("wait>50%:thinking_budget=100")


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("", "empty step"),
        ("max_tokens=5;", "empty step"),
        ("max_tokens", "'max_tokens' is not a setting"),
        ("max_token=5", "did you mean max_tokens"),
        ("colour=5", "choose one of thinking_budget, max_tokens, temperature, shed"),
        ("max_tokens=0", "at least 1"),
        ("max_tokens=-5", "whole number"),
        ("max_tokens=1e3", "whole number"),
        ("thinking_budget=x", "at least 0"),
        ("temperature=3", "from 0 to 2"),
        ("temperature=nan", "from 0 to 2"),
        ("shed=some", "choose one of flex, all"),
        ("max_tokens=5,max_tokens=6", "set twice"),
        (": max_tokens=5", "no condition before the colon"),
        ("wait: max_tokens=5", "'wait' is not a condition"),
        ("wait>90: max_tokens=5", "write wait>90%"),
        ("wait>0%: max_tokens=5", "write wait>90%"),
        ("wait<90%: max_tokens=5", "not a condition"),
        ("timeouts>=3%: max_tokens=5", "write timeouts>=3"),
        ("timeouts>=1.5: max_tokens=5", "write timeouts>=3"),
        ("timeout>=3: max_tokens=5", "did you mean timeouts"),
        ("cpu>90%: max_tokens=5", "choose one of wait, kv"),
        ("max_tokens=512; max_tokens=1024", "step 2 has max_tokens=1024, more than the 512"),
        ("shed=all; max_tokens=5", "step 2 has no effect"),
        (";".join(["max_tokens=5"] * 17), "at most 16"),
    ],
)
def test_a_wrong_ladder_is_refused_with_what_would_work(text, advice):
    with pytest.raises(ConfigError) as refusal:
        parse_rules(text)
    assert refusal.value.message.startswith("--degrade")
    assert advice in refusal.value.message
    assert len(refusal.value.message) < 300


@pytest.mark.parametrize("stay", [0.0, -1.0, float("inf"), float("nan")])
def test_a_stay_is_above_zero(stay):
    with pytest.raises(ConfigError, match="--degrade-stay"):
        ServerConfig(degrade_stay=stay)


def test_the_option_and_the_file_take_the_same(tmp_path, monkeypatch):
    seen: list[Any] = []
    monkeypatch.setattr("antiphon.commands.serving.run", lambda *settings, **_: seen.append(settings[1]))
    rule = "memory>90%,timeouts>=3: max_tokens=512,temperature=0.3"
    file = tmp_path / "antiphon.toml"
    file.write_text(f'degrade = ["{rule}", "shed=all"]\n"degrade-stay" = 5\n')
    for arguments in (["--degrade", f"{rule}; shed=all", "--degrade-stay", "5"], ["--config", str(file)]):
        result = run_antiphon("serve", "m.gguf", *arguments)
        assert result.exit_code == 0, result.output
    assert seen[0].degrade == seen[1].degrade == parse_rules(f"{rule}; shed=all")
    assert seen[0].degrade_stay == seen[1].degrade_stay == 5


def test_batches_and_the_library_never_degrade():
    assert configs("m.gguf", {})[1].degrade == parse_rules("off")
