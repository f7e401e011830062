/** The settings that shape an answer. */
import { status } from "../../state/server";
import { settings, update } from "../../state/settings";
import { dialogWords } from "../../words/dialogs";
import { ChoiceField, Frame, ValueField } from "../parts/Field";
import { setThinking, thinkingMode, type ThinkingMode } from "./thinking";
import { MAX_SYSTEM, readNumber, RULES, type Problem } from "./validate";

type NumberKey = keyof typeof RULES;

function inWords(problem: Problem): string {
  const { problems } = dialogWords.value;
  if (problem.kind === "number" || problem.kind === "whole") return problems[problem.kind];
  return problems[problem.kind](problem.least, problem.most);
}

function NumberSetting({ name, placeholder }: { name: NumberKey; placeholder?: string }) {
  const texts = dialogWords.value.settings;
  const [label, hint] =
    name === "thoughtBudget" ? [texts.budget, texts.budgetHint] : [texts[name], texts[`${name}Hint`]];
  const most = name === "maxTokens" ? (status.value?.contextLength ?? RULES[name].most) : RULES[name].most;
  return (
    <ValueField
      label={label}
      hint={hint}
      placeholder={placeholder ?? ""}
      value={settings.value[name]}
      mode={"whole" in RULES[name] ? "numeric" : "decimal"}
      read={(text) => {
        const result = readNumber(text, { ...RULES[name], most });
        return "problem" in result ? { problem: inWords(result.problem) } : result;
      }}
      onChange={(value) => update({ [name]: value })}
    />
  );
}

function SystemPrompt() {
  const { settings: texts, problems } = dialogWords.value;
  const value = settings.value.system ?? "";
  return (
    <Frame
      label={texts.system}
      hint={texts.systemHint}
      problem={value.length >= MAX_SYSTEM ? problems.long(MAX_SYSTEM) : null}
    >
      {(ids) => (
        <textarea
          {...ids}
          rows={3}
          maxLength={MAX_SYSTEM}
          value={value}
          onInput={(event) => update({ system: event.currentTarget.value || undefined })}
        />
      )}
    </Frame>
  );
}

export function AnswerFields() {
  const texts = dialogWords.value.settings;
  const advice = status.value?.advice;
  const modes: Record<ThinkingMode, string> = {
    on: texts.thinkingOn,
    off: texts.thinkingOff,
    budget: texts.thinkingBudget,
  };
  const mode = thinkingMode();
  return (
    <>
      <SystemPrompt />
      {status.value?.thinks !== false && (
        <div class="field-row">
          <ChoiceField label={texts.thinking} value={mode} options={modes} onChange={setThinking} />
          {mode === "budget" && <NumberSetting name="thoughtBudget" />}
        </div>
      )}
      <div class="field-row">
        <NumberSetting name="temperature" placeholder={texts.byServer(advice?.temperature)} />
        <NumberSetting name="topP" placeholder={texts.byServer(advice?.topP)} />
      </div>
      <div class="field-row">
        <NumberSetting name="maxTokens" />
        <NumberSetting name="seed" />
      </div>
      <NumberSetting name="logprobs" />
    </>
  );
}
