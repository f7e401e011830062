/** The whole page: the conversations beside the open one, and what lies over them. */
import { storageFault } from "../store/database";
import { words } from "../words";
import { Announcer } from "./Announcer";
import { Composer } from "./Composer";
import { backToComposer, COMPOSER_ID, focusComposer } from "./composing";
import { Conversation } from "./Conversation";
import { Dialogs } from "./Dialogs";
import { draft, setDraft } from "./drafts";
import { useDrop } from "./drop";
import { following, toEnd } from "./follow";
import { Header } from "./Header";
import { Icon } from "./icons";
import { lazy } from "./parts/lazy";
import { useShortcuts } from "./shortcuts";
import { Side } from "./Side";
import { Status } from "./Status";
import { Toasts } from "./Toasts";
import { dialog } from "./ui";

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

function Latest() {
  if (following.value) return null;
  const jump = (): void => {
    toEnd();
    backToComposer(); // this button goes
  };
  return (
    <button type="button" class="latest" onClick={jump}>
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
