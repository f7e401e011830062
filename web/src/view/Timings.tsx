/** How long an answer took: its speed in one line, and the server's own measurements behind it. */
import type { Answer } from "../state/conversation";
import { words } from "../words";
import { Menu } from "./Menu";

export function Timings({ answer }: { answer: Answer }) {
  const w = words.value;
  const { timings, usage } = answer;
  if (!timings || !usage) return null;
  const rows: [string, string, string][] = [
    [w.timings.queue, w.timings.ms(timings.queueMs), ""],
    [w.timings.prompt, w.timings.ms(timings.promptMs), w.tokens(usage.promptTokens)],
    ...(usage.cachedTokens ? [["", "", w.timings.cached(usage.cachedTokens)] as [string, string, string]] : []),
    [w.timings.wrote, w.timings.ms(timings.predictedMs), w.tokens(usage.completionTokens)],
    ...(usage.thoughtTokens ? [thought(usage.thoughtTokens)] : []),
    [w.timings.seed, String(answer.settings.seed ?? ""), ""],
  ];
  return (
    <span class="timings">
      <Menu
        label={w.timings.label}
        button={w.timings.summary(usage.completionTokens, timings.predictedPerSecond)}
        panelClass="timings-table"
      >
        <dl>
          {rows.map(([name, time, count]) => (
            <>
              <dt>{name}</dt>
              <dd>{time}</dd>
              <dd>{count}</dd>
            </>
          ))}
        </dl>
      </Menu>
    </span>
  );

  function thought(count: number): [string, string, string] {
    const seconds = answer.thoughtSeconds;
    return [w.timings.thought, seconds === undefined ? "" : w.format.duration(seconds), w.tokens(count)];
  }
}
