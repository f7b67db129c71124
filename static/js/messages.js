// Errors, which htmx does not show, announcements to screen readers, and the toast.

import { dialogs, openDialog } from "./dialogs.js";

// A page that asks in the background asks again soon.
const isPoll = (event) => event.detail.elt?.hasAttribute("data-poll");

document.addEventListener("htmx:responseError", (event) => {
  if (isPoll(event)) return;
  const { xhr } = event.detail;
  const isText = (xhr.getResponseHeader("content-type") ?? "").startsWith("text/plain");
  warn(isText ? xhr.responseText : "The server could not do this. Try again in a few seconds.");
});

document.addEventListener("htmx:sendError", (event) => {
  if (isPoll(event)) return;
  const { elt, requestConfig } = event.detail;
  const lost =
    elt.dataset.lost ??
    "It is not known whether this was done. Check your connection, then look before you try again.";
  warn(
    requestConfig.verb === "get"
      ? "The server cannot be reached. Check your connection and try again."
      : `The connection was lost. ${lost}`,
  );
});

document.addEventListener("htmx:beforeRequest", (event) => {
  if (isPoll(event)) return;
  warn("");
  // A change makes the message about the previous one outdated.
  if (event.detail.requestConfig.verb !== "get") toast("");
});

// Shows an error; inside the dialog too, which covers the page's own alert region.
export function warn(text) {
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

// Announces a text. While a dialog is open, screen readers read nothing outside it.
export function say(text) {
  const dialog = openDialog();
  let note = dialog ? dialog.querySelector(".dialog-status") : document.getElementById("status");
  if (!note) {
    note = document.createElement("p");
    note.className = "visually-hidden dialog-status";
    note.setAttribute("role", "status");
    dialog.append(note);
  }
  note.textContent = "";
  // A live region is read when its text changes.
  requestAnimationFrame(() => (note.textContent = text));
}

// The toast confirms what was done, for a while. It says nothing that cannot be seen elsewhere.

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

// Shows the message that the server sent while a dialog covered the page.
for (const dialog of dialogs) dialog.addEventListener("close", () => toast(toastRegion.textContent));
