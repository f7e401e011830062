/** Whether the model thinks before it answers, and for how many tokens at most. */
import { settings, update } from "../state/settings";
import { status } from "../state/server";
import { words } from "../words";
import { Icon } from "./icons";
import { Menu } from "./Menu";

const BUDGETS = [256, 512, 1024, 2048, 4096];

export function ThinkingControl() {
  const w = words.value;
  if (status.value?.thinks === false) return null;
  const { thinking = true, thoughtBudget } = settings.value;
  const name = !thinking
    ? w.composer.thinkingOff
    : thoughtBudget === undefined
      ? w.composer.thinkingOn
      : w.composer.thinkingUpTo(thoughtBudget);
  return (
    <Menu
      label={`${w.composer.thinking}: ${name}`}
      buttonClass="tool pill"
      panelClass="thinking-menu"
      pressed={thinking}
      button={
        <>
          <Icon name={thinking ? "thought" : "noThought"} />
          <span>{name}</span>
        </>
      }
    >
      <label>
        <b>{w.composer.thinking}</b>
        <input
          type="checkbox"
          role="switch"
          aria-checked={thinking}
          class="switch"
          checked={thinking}
          onChange={(event) => update({ thinking: event.currentTarget.checked })}
        />
      </label>
      <fieldset class="choices" disabled={!thinking}>
        <legend>{w.composer.budget}</legend>
        <Choice label={w.composer.unlimited} budget={undefined} now={thoughtBudget} />
        {BUDGETS.map((budget) => (
          <Choice key={budget} label={w.format.number(budget)} budget={budget} now={thoughtBudget} />
        ))}
      </fieldset>
      <p>{w.composer.thinkingNote}</p>
    </Menu>
  );
}

function Choice({ label, budget, now }: { label: string; budget: number | undefined; now: number | undefined }) {
  return (
    <label>
      <input
        type="radio"
        name="thought-budget"
        checked={budget === now}
        onChange={() => update({ thoughtBudget: budget })}
      />
      {label}
    </label>
  );
}
