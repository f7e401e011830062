/** Where the page begins. */
// Before the components, whose own styles come after these.
import "./style/tokens.css";
import "./style/base.css";
import "./style/layout.css";
import "./style/sidebar.css";
import "./style/message.css";
import "./style/thought.css";
import "./style/composer.css";
import "./style/print.css";
import { effect } from "@preact/signals";
import { render } from "preact";

import { attachAll } from "./state/generation";
import { settings } from "./state/settings";
import { loadMarkdown } from "./view/Prose";
import { App } from "./view/App";
import { followLanguage } from "./words";

effect(() => {
  const { theme } = settings.value;
  if (theme === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
});

const root = document.getElementById("app");
const markdown = loadMarkdown();
const opensConversation = location.hash.startsWith("#/c/");
// A conversation that is there already is shown as it will stay; a new one needs no Markdown yet.
if (root) void Promise.all([followLanguage(), opensConversation && markdown]).then(() => render(<App />, root));
void attachAll();
