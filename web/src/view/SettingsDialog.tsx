/** Opens the settings, which are loaded when they are opened first. */
import { lazy } from "./parts/lazy";
import { dialog } from "./ui";

const Settings = lazy(async () => (await import("./settings/Settings")).Settings);

const close = () => (dialog.value = null);

export function SettingsDialog() {
  return dialog.value === "settings" ? <Settings onClose={close} /> : null;
}
