// A key is shown once: the page asks before it is lost.

import { dialogs } from "./dialogs.js";

const leaveDialog = document.getElementById("leave-dialog");

function shownKey() {
  return document.querySelector("[data-reveal]");
}

export function guardKey() {
  if (shownKey()) window.addEventListener("beforeunload", askBefore);
  else window.removeEventListener("beforeunload", askBefore);
}

function askBefore(event) {
  event.preventDefault();
}

function keyDialog() {
  return dialogs.find((dialog) => dialog.open && dialog.contains(shownKey()));
}

// Esc must not close a dialog that shows a key. (Browsers ignore a prevented "cancel" before the
// first interaction with the page.)
document.addEventListener("htmx:afterSettle", (event) => {
  const dialog = dialogs.find((d) => d === event.detail.target);
  dialog?.setAttribute("closedby", shownKey() ? "none" : "closerequest");
});

for (const dialog of dialogs) dialog.addEventListener("close", guardKey);

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing || leaveDialog?.open || !keyDialog()) return;
  event.preventDefault();
  leaveDialog.showModal();
});

// A click on the backdrop targets the dialog, but lies outside its box.
document.addEventListener("pointerdown", (event) => {
  const dialog = keyDialog();
  if (!dialog || event.target !== dialog) return;
  const box = dialog.getBoundingClientRect();
  const isBeside = event.clientX < box.left || event.clientX > box.right;
  if (!isBeside && event.clientY >= box.top && event.clientY <= box.bottom) return;
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

// The browser keeps pages for "back": a shown key must not be in them.
window.addEventListener("pagehide", () => {
  for (const reveal of document.querySelectorAll("[data-reveal]")) reveal.remove();
});
