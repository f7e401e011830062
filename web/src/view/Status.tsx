/** One line about the server: how busy it is and what that means for the reader, or why it cannot answer now. */
import { pollNow, reach, status } from "../state/server";
import { words } from "../words";
import { describe } from "./serverLine";

export function Status() {
  const w = words.value;
  const line = describe(w, status.value, reach.value);
  if (!line) return <div class="status" />;
  return (
    <div class="status" data-tone={line.tone} role="group" aria-label={w.status.label}>
      <span>
        <span class="dot" />
        {line.parts.map((part, index) => (
          <span key={index}>
            {index ? " · " : ""}
            <span class="whole">{part}</span>
          </span>
        ))}
      </span>
      {line.progress === undefined ? null : <progress max={1} value={line.progress} aria-label={line.parts[0]} />}
      {line.retry ? (
        <button type="button" class="link" onClick={pollNow}>
          {w.status.tryNow}
        </button>
      ) : null}
    </div>
  );
}
