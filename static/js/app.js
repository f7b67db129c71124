// Every page loads this module, and with it all others.

import { makeCharts } from "./charts.js";
import "./dialogs.js";
import { guardKey } from "./reveal.js";
import "./messages.js";
import { makeTabs } from "./snippets.js";
import { tellTimes } from "./times.js";
import { awaitUses } from "./uses.js";
import "./forms.js";

// Prepares the content of the page, and later the content that htmx inserts.
function prepare() {
  makeTabs();
  makeCharts();
  tellTimes();
  guardKey();
  awaitUses();
}

document.addEventListener("htmx:afterSettle", prepare);
prepare();

// Keyboard shortcuts, unless someone is typing or has switched them off.
const shortcuts = {
  c: () => document.getElementById("create-key")?.click(),
  "/": () => document.getElementById("key-search")?.focus(),
};

document.addEventListener("keydown", (event) => {
  const { ctrlKey, metaKey, altKey, target } = event;
  if (!document.body.hasAttribute("data-shortcuts") || ctrlKey || metaKey || altKey) return;
  if (event.isComposing || event.repeat || document.querySelector("dialog[open], :popover-open")) return;
  if (target.closest("input, textarea, select, [contenteditable]")) return;
  const action = shortcuts[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
