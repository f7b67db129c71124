"use strict";

// Dialogs: htmx puts a fragment into a <dialog>; here it is opened, and closed when it is empty.

const dialogs = [...document.querySelectorAll("dialog")];
const pageStatus = document.getElementById("status");
// The id of what opened the dialog: the list may have been put in anew since.
let opener;

document.addEventListener("htmx:afterSettle", (event) => {
  const dialog = dialogs.find((d) => d === event.detail.target);
  if (!dialog) return;
  if (dialog.children.length === 0) {
    dialog.close();
    return;
  }
  // A key that is shown once must not vanish by a stray Esc.
  dialog.setAttribute("closedby", showsKey(dialog) ? "none" : "closerequest");
  if (!dialog.open) {
    pageStatus.textContent = "";
    opener = document.activeElement?.id;
    dialog.showModal();
  }
  (dialog.querySelector("[aria-invalid]") ?? dialog.querySelector("[autofocus]"))?.focus();
});

for (const dialog of dialogs) {
  // For browsers that do not know "closedby".
  dialog.addEventListener("cancel", (event) => {
    if (showsKey(dialog)) event.preventDefault();
  });
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    focusSomewhere();
    // What the server said while the dialog hid the page.
    say(pageStatus.textContent);
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

function showsKey(dialog) {
  return dialog.querySelector("[data-reveal]") !== null;
}

// What had the focus may be gone from the page: the heading is always there.
function focusSomewhere() {
  const active = document.activeElement;
  if (!active || active === document.body || !active.isConnected) {
    const again = opener && document.getElementById(opener);
    (again || document.querySelector("h1[tabindex]"))?.focus();
  }
}

// The browser keeps pages for "back": a shown key must not be among them.
window.addEventListener("pagehide", () => {
  for (const reveal of document.querySelectorAll("[data-reveal]")) reveal.remove();
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
  if (form.method !== "post" || form.hasAttribute("hx-post")) return;
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
  select(source);
  const label = button.dataset.label ?? (button.dataset.label = button.textContent);
  button.textContent = copied ? "Copied" : "Selected: press Ctrl+C";
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

document.addEventListener("htmx:sendError", () => {
  warn("The server cannot be reached. Check your connection and try again.");
});

document.addEventListener("htmx:beforeRequest", () => warn(""));

// Inside a modal dialog the page's own alert region cannot be seen.
function warn(text) {
  document.getElementById("alert").textContent = text;
  const dialog = dialogs.find((d) => d.open);
  if (!dialog) return;
  dialog.querySelector(".dialog-alert")?.remove();
  if (!text) return;
  const note = document.createElement("p");
  note.className = "note danger dialog-alert";
  note.setAttribute("role", "alert");
  note.textContent = text;
  dialog.prepend(note);
}

// Outside an open dialog nothing is read aloud either.
function say(text) {
  const dialog = dialogs.find((d) => d.open);
  if (!dialog) {
    pageStatus.textContent = text;
    return;
  }
  let note = dialog.querySelector(".dialog-status");
  if (!note) {
    note = document.createElement("p");
    note.className = "visually-hidden dialog-status";
    note.setAttribute("role", "status");
    dialog.append(note);
  }
  // A live region is read when it changes, not when it comes.
  requestAnimationFrame(() => (note.textContent = text));
}

// After a swap without a dialog (pause, resume) htmx restores the focus by id.
document.addEventListener("htmx:afterSettle", () => {
  if (!dialogs.some((d) => d.open)) focusSomewhere();
});
