// Dialogs and menus, and where the focus goes when they close or when content is replaced.

export const dialogs = [document.getElementById("dialog"), document.getElementById("alert-dialog")].filter(Boolean);

// By dialog, the id of the element that opened it: the element may have been replaced since.
const openers = new Map();

// The open dialog, or the one on top of another.
export function openDialog() {
  return dialogs.findLast((dialog) => dialog.open);
}

// A dialog opens when htmx puts a fragment into it, and closes when the fragment is empty.
document.addEventListener("htmx:afterSettle", (event) => {
  const dialog = dialogs.find((d) => d === event.detail.target);
  if (!dialog) return;
  if (dialog.children.length === 0) {
    noteInFound(openers.get(dialog));
    dialog.close();
    return;
  }
  if (!dialog.open) {
    openers.set(dialog, document.activeElement?.id);
    dialog.showModal();
  }
  dialog.scrollTop = 0;
  dialog.querySelector("[autofocus]")?.focus();
});

for (const dialog of dialogs) {
  dialog.addEventListener("close", () => {
    dialog.replaceChildren();
    restoreFocus(openers.get(dialog));
  });
}

document.addEventListener("click", (event) => {
  const closer = event.target.closest("[data-close-dialog]");
  const dialog = closer?.closest("dialog");
  if (!dialog) return;
  event.preventDefault();
  dialog.close();
});

// A click for a new tab opens the page there, not the dialog here.
document.addEventListener(
  "click",
  (event) => {
    const wantsTab = event.ctrlKey || event.metaKey || event.shiftKey;
    if (wantsTab && event.target.closest("a[hx-get]")) event.stopImmediatePropagation();
  },
  true,
);

// htmx restores the focus by id, if it can. Polling must not move it.
document.addEventListener("htmx:afterSettle", (event) => {
  if (!openDialog() && !event.detail.elt.hasAttribute("data-poll")) restoreFocus(openers.get(event.detail.target));
});

// A key was paused or deleted from the list of found keys, which stays open: what was done takes the
// place of its buttons.
function noteInFound(opener) {
  const buttons = document.getElementById(opener)?.closest(".found")?.querySelector(".buttons");
  if (!buttons) return;
  const note = document.createElement("p");
  note.className = "note";
  note.tabIndex = -1;
  note.textContent = document.getElementById("toast").textContent;
  buttons.replaceWith(note);
  note.focus();
}

// If the focused element is gone, the focus goes to the opener, or else to the heading.
function restoreFocus(opener) {
  const active = document.activeElement;
  if (!active || active === document.body || !active.isConnected) {
    const again = opener && document.getElementById(opener);
    const heading = openDialog()?.querySelector("h2") ?? document.querySelector("h1[tabindex]");
    (again || heading)?.focus();
  }
}

// A request from a menu closes it; the focus goes back to the menu's button.
document.addEventListener("htmx:beforeRequest", (event) => {
  event.detail.elt.closest("[popover]")?.hidePopover();
});
