/** The conversations: new, search, the list in groups, and the way to the settings. */
import { useEffect, useState } from "preact/hooks";

import { current, heads, search, startNew, type Head } from "../state/conversations";
import { words } from "../words";
import { Icon, Sign } from "./icons";
import { SidebarItem } from "./SidebarItem";
import { ToolButton } from "./ToolButton";
import { dialog, drawer, toggleSidebar } from "./ui";

export const SEARCH_ID = "conversation-search";
const PAUSE = 150; // milliseconds after the last letter

export function newChat(): void {
  startNew();
  drawer.value = false;
}

export function Sidebar() {
  const w = words.value;
  const [query, setQuery] = useState("");
  return (
    <nav class="sidebar" aria-label={w.sidebar.label}>
      <div class="sidebar-top">
        <span class="brand">
          <Sign /> Antiphon
        </span>
        <ToolButton icon="sidebar" name="sidebar" label={w.page.hideMenu} onClick={toggleSidebar} />
      </div>
      <button type="button" class="new-chat" onClick={newChat}>
        <Icon name="plus" />
        {w.sidebar.newChat}
      </button>
      <SearchField query={query} onChange={setQuery} />
      <div class="list">
        <Groups query={query.trim()} />
      </div>
      <div class="sidebar-foot">
        <button type="button" class="tool" onClick={() => (dialog.value = "settings")}>
          <Icon name="gear" /> {w.page.settings}
        </button>
        <span class="space" />
        <ToolButton icon="keyboard" label={w.page.shortcuts} onClick={() => (dialog.value = "shortcuts")} />
      </div>
    </nav>
  );
}

function SearchField({ query, onChange }: { query: string; onChange: (query: string) => void }) {
  const w = words.value;
  return (
    <search class="search">
      <Icon name="search" />
      <input
        id={SEARCH_ID}
        type="search"
        value={query}
        placeholder={w.sidebar.search}
        aria-label={w.sidebar.searchLabel}
        onInput={(event) => onChange(event.currentTarget.value)}
      />
      {query ? <ToolButton icon="close" label={w.sidebar.clear} onClick={() => onChange("")} /> : null}
    </search>
  );
}

function Groups({ query }: { query: string }) {
  const w = words.value;
  const found = useFound(query);
  const groups = query ? [{ name: w.sidebar.found, heads: found ?? [] }] : grouped(heads.value, w.sidebar);
  const shown = groups.filter((group) => group.heads.length);
  if (!shown.length) return query && !found ? null : <p>{query ? w.sidebar.noMatch : w.sidebar.none}</p>;
  return (
    <>
      {shown.map((group) => (
        <section key={group.name}>
          <h2>{group.name}</h2>
          <ul>
            {group.heads.map((head) => (
              <SidebarItem key={head.id} head={head} here={head.id === current.value.id} />
            ))}
          </ul>
        </section>
      ))}
    </>
  );
}

function grouped(all: readonly Head[], names: { pinned: string; today: string; earlier: string }) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  const sorted = all.toSorted((a, b) => b.updatedAt - a.updatedAt);
  const rest = sorted.filter((head) => !head.pinned);
  return [
    { name: names.pinned, heads: sorted.filter((head) => head.pinned) },
    { name: names.today, heads: rest.filter((head) => head.updatedAt >= midnight) },
    { name: names.earlier, heads: rest.filter((head) => head.updatedAt < midnight) },
  ];
}

/** What a search finds; null until it has been looked for. */
function useFound(query: string): Head[] | null {
  const [found, setFound] = useState<Head[] | null>(null);
  useEffect(() => {
    setFound(null);
    if (!query) return undefined;
    let wanted = true;
    const timer = window.setTimeout(() => {
      void search(query).then((result) => wanted && setFound(result));
    }, PAUSE);
    return () => {
      wanted = false;
      window.clearTimeout(timer);
    };
  }, [query]);
  return found;
}
