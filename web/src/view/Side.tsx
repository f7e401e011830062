/** The conversations beside the open one: a column on a wide window, a drawer on a narrow one. */
import { words } from "../words";
import { useModal } from "./modal";
import { Sidebar } from "./Sidebar";
import { drawer, narrow, sidebar } from "./ui";

export function Side() {
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
