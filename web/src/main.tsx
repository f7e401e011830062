/** Where the page begins. */
import { render } from "preact";

import { App } from "./view/App";

const root = document.getElementById("app");
if (root) render(<App />, root);
