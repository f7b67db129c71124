// Every page loads this module, and with it all others.

import "./dialogs.js";
import { guardKey } from "./reveal.js";
import "./messages.js";
import { makeTabs } from "./snippets.js";
import { tellTimes } from "./times.js";
import { awaitUses } from "./uses.js";
import "./forms.js";
import "./keyboard.js";

// Prepares what came with the page, and later what htmx brings.
function prepare() {
  makeTabs();
  tellTimes();
  guardKey();
  awaitUses();
}

document.addEventListener("htmx:afterSettle", prepare);
prepare();
