/** Opens the dialog that exports, imports, shares and prints; its code is loaded with the first use. */
import { words } from "../words";
import { Icon } from "./icons";
import { lazy } from "./parts/lazy";
import { dialog } from "./ui";

const Dialog = lazy(async () => (await import("./transfer/TransferView")).TransferView);

/** The button that opens the dialog. */
export function TransferMenu() {
  const { transfer } = words.value.extras;
  return (
    <button
      type="button"
      class="tool"
      aria-label={transfer.open}
      title={transfer.open}
      aria-haspopup="dialog"
      onClick={() => (dialog.value = "transfer")}
    >
      <Icon name="share" />
    </button>
  );
}

export function TransferDialog() {
  return dialog.value === "transfer" ? <Dialog onClose={() => (dialog.value = null)} /> : null;
}
