"use strict";

const dialogs = [document.getElementById("dialog"), document.getElementById("alert-dialog")].filter(Boolean);
const leaveDialog = document.getElementById("leave-dialog");
// The id of what opened the dialog: the list may have been put in anew since.
let opener;

function openDialog() {
  return dialogs.find((dialog) => dialog.open);
}

// Dialogs: htmx puts a fragment into a <dialog>; here it is opened, and closed when it is empty.

document.addEventListener("htmx:afterSettle", (event) => {
  const dialog = dialogs.find((d) => d === event.detail.target);
  if (!dialog) return;
  if (dialog.children.length === 0) {
    dialog.close();
    return;
  }
  // Esc must not close a key that is shown once. (Browsers close a dialog in spite of a prevented
  // "cancel" when nobody has touched the page before.)
  dialog.setAttribute("closedby", shownKey() ? "none" : "closerequest");
  if (!dialog.open) {
    opener = document.activeElement?.id;
    dialog.showModal();
  }
  dialog.scrollTop = 0;
  dialog.querySelector("[autofocus]")?.focus();
});

for (const dialog of dialogs) {
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    guardKey();
    focusSomewhere();
    // What the server said while the dialog hid the page.
    toast(toastRegion.textContent);
  });
}

document.addEventListener("click", (event) => {
  const closer = event.target.closest("[data-close-dialog]");
  const dialog = closer?.closest("dialog");
  if (!dialog) return;
  event.preventDefault();
  dialog.close();
});

// Someone who wants a new tab gets one, not the dialog.
document.addEventListener(
  "click",
  (event) => {
    const wantsTab = event.ctrlKey || event.metaKey || event.shiftKey;
    if (wantsTab && event.target.closest("a[hx-get]")) event.stopImmediatePropagation();
  },
  true,
);

// After a swap without a dialog (pause, resume, sorting) htmx restores the focus by id.
document.addEventListener("htmx:afterSettle", (event) => {
  if (!openDialog() && !isPoll(event.detail.elt)) focusSomewhere();
});

// What had the focus may be gone from the page: the heading is always there.
function focusSomewhere() {
  const active = document.activeElement;
  if (!active || active === document.body || !active.isConnected) {
    const again = opener && document.getElementById(opener);
    (again || document.querySelector("h1[tabindex]"))?.focus();
  }
}

// A key that is shown once: whoever is about to lose it is asked first.

function shownKey() {
  return document.querySelector("[data-reveal]");
}

function guardKey() {
  if (shownKey()) window.addEventListener("beforeunload", askBefore);
  else window.removeEventListener("beforeunload", askBefore);
}

function askBefore(event) {
  event.preventDefault();
}

function keyDialog() {
  return dialogs.find((dialog) => dialog.open && dialog.contains(shownKey()));
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || leaveDialog?.open || !keyDialog()) return;
  event.preventDefault();
  leaveDialog.showModal();
});

// A press on the backdrop is one on the dialog itself, outside of its box.
document.addEventListener("pointerdown", (event) => {
  const dialog = keyDialog();
  if (!dialog || event.target !== dialog) return;
  const box = dialog.getBoundingClientRect();
  const isInside = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
  if (isInside) return;
  event.preventDefault();
  leaveDialog.showModal();
});

leaveDialog?.querySelector("#leave-no").addEventListener("click", () => leaveDialog.close());
leaveDialog?.querySelector("#leave-yes").addEventListener("click", () => {
  leaveDialog.close();
  keyDialog()?.close();
});

document.addEventListener("click", (event) => {
  if (event.target.closest("#stored")) window.removeEventListener("beforeunload", askBefore);
});

// The browser keeps pages for "back": a shown key must not be among them.
window.addEventListener("pagehide", () => {
  for (const reveal of document.querySelectorAll("[data-reveal]")) reveal.remove();
});

// What comes with the page and what htmx brings.

function prepare(root) {
  for (const box of root.querySelectorAll("[data-tabs]")) makeTabs(box);
  tellTimes(root);
  guardKey();
  awaitUses();
}

document.addEventListener("htmx:afterSettle", () => prepare(document));

// Tabs: sections one after the other, of which one is shown.

function makeTabs(box) {
  const list = document.createElement("div");
  list.className = "tabs boxed";
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", box.dataset.tabs);
  delete box.dataset.tabs;
  const panels = [...box.querySelectorAll(":scope > section")];
  const tabs = panels.map((panel) => {
    const label = panel.querySelector(".label");
    const tab = document.createElement("button");
    tab.type = "button";
    tab.id = `${panel.id}-tab`;
    tab.textContent = label.textContent;
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", panel.id);
    label.remove();
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    list.append(tab);
    return tab;
  });
  const choose = (chosen) => {
    tabs.forEach((tab, at) => {
      tab.setAttribute("aria-selected", at === chosen);
      tab.tabIndex = at === chosen ? 0 : -1;
      panels[at].hidden = at !== chosen;
    });
  };
  list.addEventListener("click", (event) => {
    if (tabs.includes(event.target)) choose(tabs.indexOf(event.target));
  });
  list.addEventListener("keydown", (event) => {
    const at = tabs.indexOf(event.target);
    const wanted = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    const next = (wanted + tabs.length) % tabs.length;
    choose(next);
    tabs[next].focus();
  });
  box.prepend(list);
  choose(0);
}

// Times, in the visitor's language and zone. The server's clock counts, not this machine's.

const skew = Date.now() - Date.parse(document.body.dataset.now);
const locale = [...navigator.languages];
const formats = {
  day: new Intl.DateTimeFormat(locale, { dateStyle: "medium" }),
  minute: new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" }),
};

function tellTimes(root) {
  for (const time of root.querySelectorAll("time[data-time]")) {
    const at = new Date(time.dateTime);
    const how = time.dataset.time;
    const text = how === "ago" ? ago(at) : formats[how].format(at);
    if (time.textContent !== text) time.textContent = text;
    if (how !== "minute") time.title = formats.minute.format(at);
  }
  for (const zone of root.querySelectorAll("[data-zone]")) {
    zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
  }
}

function ago(at) {
  const minutes = Math.floor((Date.now() - skew - at) / 60_000);
  if (minutes < 1) return "just now";
  const [count, unit] =
    minutes < 60 ? [minutes, "minute"]
    : minutes < 1_440 ? [Math.floor(minutes / 60), "hour"]
    : [Math.floor(minutes / 1_440), "day"];
  if (unit === "day" && count > 30) return formats.day.format(at);
  return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
}

setInterval(() => tellTimes(document), 30_000);

// Menus: what is asked for from one closes it; the focus goes back to its button.

document.addEventListener("htmx:beforeRequest", (event) => {
  event.detail.elt.closest("[popover]")?.hidePopover();
});

// Asking whether new keys were used: one question for the whole list, less and less often, only while
// somebody looks, for an hour at most, and without any noise.

const firstPause = 3_000;
const longestPause = 60_000;
const longestWait = 3_600_000;
let awaited = "";
let pause, askAgain, stopAsking;

function isPoll(element) {
  return element.hasAttribute("data-poll");
}

// Begins anew when other keys are waited for.
function awaitUses() {
  const cells = [...document.querySelectorAll("[data-awaits-use]")];
  const ids = cells.map((cell) => cell.dataset.awaitsUse).sort().join(",");
  if (ids === awaited) return;
  awaited = ids;
  stopAsking = Date.now() + longestWait;
  askIn(firstPause);
}

function askIn(time) {
  pause = time;
  clearTimeout(askAgain);
  if (awaited && !document.hidden && Date.now() < stopAsking) askAgain = setTimeout(askUses, time);
}

async function askUses() {
  const ids = awaited;
  let news = "";
  try {
    const answer = await fetch(`/api-keys/first-uses?ids=${ids}`);
    // Nobody is signed in any more.
    if (answer.status === 204) return;
    if (answer.ok) news = await answer.text();
  } catch {
    // Maybe the next time.
  }
  if (ids !== awaited) return;
  askIn(Math.min(pause * 1.5, longestPause));
  if (!news) return;
  htmx.swap(document.getElementById("first-uses"), news, { swapStyle: "none" });
  prepare(document);
}

document.addEventListener("visibilitychange", () => askIn(firstPause));

// Searching for a pasted key shows no more of it than the list does.

document.addEventListener("input", (event) => {
  const field = event.target;
  if (field.id !== "key-search") return;
  const short = field.value.replace(/(tsend_\w\w)\w{32}(\w{4})/g, "$1…$2");
  if (short !== field.value) field.value = short;
});

// Keys that do something by themselves, unless somebody types or has switched them off.

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

// The theme changes at once, without a new page.

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.hasAttribute("data-preferences")) return;
  event.preventDefault();
  const wanted = new URLSearchParams(new FormData(form, event.submitter));
  const theme = wanted.get("theme");
  document.documentElement.dataset.theme = theme;
  for (const button of document.querySelectorAll("[data-preferences] [name=theme]")) {
    button.setAttribute("aria-pressed", button.value === theme);
  }
  try {
    await fetch("/preferences", { method: "POST", body: wanted, headers: { "HX-Request": "true" } });
  } catch {
    warn("The server cannot be reached: the theme was not saved.");
  }
});

// Two fields that say one thing: choosing in one never leaves the other saying something else.

document.addEventListener("change", (event) => {
  const field = event.target;
  const scope = field.closest("[data-scope]");
  if (scope && field.name === "domain" && field.checked) {
    scope.querySelector("[name=scope][value=domains]").checked = true;
  }
  if (scope && field.name === "scope" && field.value === "all") {
    for (const box of scope.querySelectorAll("[name=domain]")) box.checked = false;
  }
  const expiry = field.closest("[data-expiry]");
  if (expiry && field.name === "expires_on" && field.value) {
    expiry.querySelector("[name=expiry]").value = "date";
  }
  if (expiry && field.name === "expiry" && field.value !== "date") {
    expiry.querySelector("[name=expires_on]").value = "";
  }
});

// A form without htmx is sent once: the answer to the first of two clicks would be lost, and with it
// a key that is shown only there.

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || form.hasAttribute("hx-post") || event.defaultPrevented) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "true";
});

window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

// Copying.

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const copied = await copy(source);
  // The focus stays where it was, but for text that is to be copied by hand.
  if (copied) button.focus();
  else select(source);
  const label = button.dataset.label ?? (button.dataset.label = button.textContent);
  button.textContent = copied ? "Copied" : "Press Ctrl+C";
  say(copied ? "Copied." : "Copying is not possible here. The text is selected: press Ctrl+C.");
  setTimeout(() => (button.textContent = label), 4000);
});

async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
    return true;
  } catch {
    // On plain http there is no clipboard object; a selection can still be copied.
    select(source);
    return document.execCommand("copy");
  }
}

function select(source) {
  if (source.select) {
    source.focus();
    source.select();
    return;
  }
  const range = document.createRange();
  range.selectNodeContents(source);
  const selection = window.getSelection();
  selection.removeAllRanges();
  selection.addRange(range);
}

// What went wrong, in one place: htmx shows nothing by itself.

document.addEventListener("htmx:responseError", (event) => {
  const { xhr } = event.detail;
  const isText = (xhr.getResponseHeader("content-type") ?? "").startsWith("text/plain");
  warn(isText ? xhr.responseText : "The server could not do this. Try again in a few seconds.");
});

document.addEventListener("htmx:sendError", (event) => {
  const { elt, requestConfig } = event.detail;
  const lost = elt.dataset.lost ?? "It is not known whether this was done. Check your connection, then look before you try again.";
  warn(
    requestConfig.verb === "get"
      ? "The server cannot be reached. Check your connection and try again."
      : `The connection was lost. ${lost}`,
  );
});

document.addEventListener("htmx:beforeRequest", () => warn(""));

// What was said of the state before is not true any more.
document.addEventListener("htmx:beforeRequest", (event) => {
  if (event.detail.requestConfig.verb !== "get") toast("");
});

// Inside a modal dialog the page's own alert region cannot be seen.
function warn(text) {
  document.getElementById("alert").textContent = text;
  const dialog = openDialog();
  if (!dialog) return;
  dialog.querySelector(".dialog-alert")?.remove();
  if (!text) return;
  const note = document.createElement("p");
  note.className = "note danger dialog-alert";
  note.setAttribute("role", "alert");
  note.textContent = text;
  dialog.prepend(note);
  dialog.scrollTop = 0;
}

// What is read aloud. Outside an open dialog nothing is.
function say(text) {
  const dialog = openDialog();
  let note = dialog ? dialog.querySelector(".dialog-status") : document.getElementById("status");
  if (!note) {
    note = document.createElement("p");
    note.className = "visually-hidden dialog-status";
    note.setAttribute("role", "status");
    dialog.append(note);
  }
  note.textContent = "";
  // A live region is read when it changes, not when it comes, nor when it is the same again.
  requestAnimationFrame(() => (note.textContent = text));
}

// What was done: shown for a while and read aloud. Says nothing that cannot be seen elsewhere.

const toastRegion = document.getElementById("toast");
let toastEnd;

function toast(text) {
  if (!toastRegion) return;
  toastRegion.textContent = text;
  toastRegion.classList.toggle("shown", text !== "");
  clearTimeout(toastEnd);
  toastEnd = setTimeout(() => toast(""), 8000);
}

document.addEventListener("htmx:oobAfterSwap", (event) => {
  if (event.detail.target === toastRegion && !openDialog()) toast(toastRegion.textContent);
});

prepare(document);
