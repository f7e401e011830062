/** The line above a conversation: its title, and what can be done with it as a whole. */
import { useEffect } from "preact/hooks";

import { titleOf } from "../state/conversation";
import { current } from "../state/conversations";
import { words } from "../words";
import { newChat } from "./Sidebar";
import { ToolButton } from "./ToolButton";
import { TransferMenu } from "./TransferMenu";
import { drawer, narrow, sidebar, toggleSidebar } from "./ui";

export function Header() {
  const w = words.value;
  const shown = narrow.value ? drawer.value : sidebar.value;
  const title = titleOf(current.value);
  useEffect(() => {
    document.title = title ? `${title} – ${w.page.title}` : w.page.title;
  }, [title, w]);
  return (
    <header class="header">
      {shown ? null : <ToolButton icon="sidebar" name="sidebar" label={w.page.menu} onClick={toggleSidebar} />}
      <h1>{title || <span class="unseen">{w.sidebar.untitled}</span>}</h1>
      <TransferMenu />
      {shown ? null : <ToolButton icon="plus" label={w.sidebar.newChat} onClick={newChat} />}
    </header>
  );
}
