/** The list of the keys; loaded when it is asked for. */
import { words } from "../words";
import { Dialog } from "./parts/Dialog";
import { KEYS } from "./shortcuts";

export function ShortcutsDialog({ onClose }: { onClose: () => void }) {
  const w = words.value;
  return (
    <Dialog title={w.shortcuts.title} onClose={onClose} size="small">
      <dl class="shortcuts">
        {KEYS.map(([name, keys]) => (
          <div key={name}>
            <dt>{w.shortcuts[name]}</dt>
            <dd>
              {keys.map((each) => (
                <kbd key={each}>{each}</kbd>
              ))}
            </dd>
          </div>
        ))}
      </dl>
    </Dialog>
  );
}
