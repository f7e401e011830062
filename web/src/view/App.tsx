/** The whole page: the conversations beside the open one, and what lies over them. */
import { useEffect, useState } from "preact/hooks";

import { titleOf } from "../state/conversation";
import { current } from "../state/library";
import { storageFault } from "../store/database";
import { words } from "../words";
import { Announcer } from "./Announcer";
import { Composer } from "./Composer";
import { COMPOSER_ID, focusComposer } from "./composing";
import { Conversation } from "./Conversation";
import { Dialogs } from "./Dialogs";
import { draft, setDraft } from "./drafts";
import { attachFiles } from "./files";
import { following, toEnd } from "./follow";
import { Icon } from "./icons";
import { useModal } from "./modal";
import { lazy } from "./parts/lazy";
import { useShortcuts } from "./shortcuts";
import { newChat, Sidebar } from "./Sidebar";
import { Status } from "./Status";
import { Toasts } from "./Toasts";
import { ToolButton } from "./ToolButton";
import { TransferMenu } from "./TransferMenu";
import { dialog, drawer, narrow, sidebar, toggleSidebar } from "./ui";

const ShortcutsDialog = lazy<{ onClose: () => void }>(async () => (await import("./ShortcutsDialog")).ShortcutsDialog);

export function App() {
  const w = words.value;
  useShortcuts();
  const dropping = useDrop();
  return (
    <div class="page">
      <a
        class="skip"
        href={`#${COMPOSER_ID}`}
        onClick={(event) => {
          event.preventDefault(); // the part after # names the conversation
          focusComposer();
        }}
      >
        {w.page.skip}
      </a>
      <Side />
      <div class="stage">
        <Header />
        <main aria-label={w.page.main}>
          <Conversation />
        </main>
        <section class="foot" aria-label={w.composer.label}>
          <div class="column">
            <Latest />
            <Toasts />
            <StorageFault />
            <Composer />
            <Status />
          </div>
        </section>
      </div>
      <Announcer />
      {dialog.value === "shortcuts" ? <ShortcutsDialog onClose={() => (dialog.value = null)} /> : null}
      <Dialogs onDescribe={(text) => setDraft({ text: `${draft.peek().text}\n\n${text}`.trim() })} />
      {dropping ? <div class="drop">{w.page.dropHere}</div> : null}
    </div>
  );
}

function Side() {
  if (!narrow.value) return sidebar.value ? <Sidebar /> : <span />;
  return drawer.value ? <Drawer /> : <span />;
}

function Drawer() {
  return (
    <dialog ref={useModal()} class="drawer" aria-label={words.value.sidebar.label} onClose={() => (drawer.value = false)}>
      <Sidebar />
    </dialog>
  );
}

function Header() {
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

function Latest() {
  if (following.value) return null;
  return (
    <button type="button" class="latest" onClick={toEnd}>
      <Icon name="arrowDown" />
      {words.value.message.latest}
    </button>
  );
}

function StorageFault() {
  if (!storageFault.value) return null;
  return (
    <div class="note bad" role="alert">
      <span>{words.value.fault.storage}</span>
    </div>
  );
}

/** Files may be dropped anywhere on the page. */
function useDrop(): boolean {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const has = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
    const drag = (event: DragEvent): void => {
      if (!has(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event: DragEvent): void => {
      if (event.relatedTarget === null) setOver(false);
    };
    const drop = (event: DragEvent): void => {
      if (!has(event)) return;
      event.preventDefault();
      setOver(false);
      void attachFiles([...(event.dataTransfer?.files ?? [])]);
    };
    const handlers = { dragover: drag, dragleave: leave, drop };
    for (const [name, handler] of Object.entries(handlers)) document.addEventListener(name, handler as EventListener);
    return () => {
      for (const [name, handler] of Object.entries(handlers)) document.removeEventListener(name, handler as EventListener);
    };
  }, []);
  return over;
}
