/** One conversation in the list: a link, and a menu to rename, pin or delete it. */
import { useEffect, useRef, useState } from "preact/hooks";

import { pin, rename, type Head } from "../state/conversations";
import { words } from "../words";
import { Icon } from "./icons";
import { Menu } from "./Menu";
import { removeConversation } from "./removal";
import { drawer } from "./ui";

export function SidebarItem({ head, here }: { head: Head; here: boolean }) {
  const w = words.value.sidebar;
  const [renaming, setRenaming] = useState(false);
  const link = useRef<HTMLAnchorElement>(null);
  const title = head.title || w.untitled;
  function endRenaming(): void {
    setRenaming(false);
    requestAnimationFrame(() => {
      if (document.activeElement === document.body) link.current?.focus();
    });
  }
  if (renaming) return <Rename head={head} onEnd={endRenaming} />;
  return (
    <li class={here ? "item here" : "item"}>
      <a
        ref={link}
        href={`#/c/${head.id}`}
        title={title}
        aria-current={here ? "page" : undefined}
        onClick={() => (drawer.value = false)}
        onDblClick={() => setRenaming(true)}
      >
        {title}
      </a>
      <Menu label={w.actions(title)} button={<Icon name="more" />}>
        {(close) => (
          <>
            <button type="button" onClick={() => setRenaming(true)}>
              <Icon name="edit" /> {w.rename}
            </button>
            <button
              type="button"
              onClick={() => {
                close();
                pin(head.id, !head.pinned);
              }}
            >
              <Icon name="pin" /> {head.pinned ? w.unpin : w.pin}
            </button>
            <button
              type="button"
              class="bad"
              onClick={() => {
                close();
                removeConversation(head.id, title);
              }}
            >
              <Icon name="trash" /> {w.remove}
            </button>
          </>
        )}
      </Menu>
    </li>
  );
}

function Rename({ head, onEnd }: { head: Head; onEnd: () => void }) {
  const field = useRef<HTMLInputElement>(null);
  const given = useRef(false);
  useEffect(() => field.current?.select(), []);
  function finish(keep: boolean): void {
    if (given.current) return; // Enter also takes the focus away
    given.current = true;
    const title = field.current?.value.trim();
    if (keep && title && title !== head.title) rename(head.id, title);
    onEnd();
  }
  return (
    <li class="item">
      <input
        ref={field}
        defaultValue={head.title}
        maxLength={200}
        aria-label={words.value.sidebar.renameLabel}
        onBlur={() => finish(true)}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "Enter") finish(true);
          if (event.key === "Escape") finish(false);
        }}
      />
    </li>
  );
}
