// Dialogs and menus, and where the focus goes when they close or when content is replaced.

export const dialogs = [document.getElementById("dialog"), document.getElementById("alert-dialog")].filter(Boolean);

// The id of the element that opened the dialog: the element may have been replaced since.
let opener;

export function openDialog() {
  return dialogs.find((dialog) => dialog.open);
}

// A dialog opens when htmx puts a fragment into it, and closes when the fragment is empty.
document.addEventListener("htmx:afterSettle", (event) => {
  const dialog = dialogs.find((d) => d === event.detail.target);
  if (!dialog) return;
  if (dialog.children.length === 0) {
    dialog.close();
    return;
  }
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
    restoreFocus();
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
  if (!openDialog() && !event.detail.elt.hasAttribute("data-poll")) restoreFocus();
});

// If the focused element is gone, the focus goes to the opener, or else to the heading.
function restoreFocus() {
  const active = document.activeElement;
  if (!active || active === document.body || !active.isConnected) {
    const again = opener && document.getElementById(opener);
    (again || document.querySelector("h1[tabindex]"))?.focus();
  }
}

// A request from a menu closes it; the focus goes back to the menu's button.
document.addEventListener("htmx:beforeRequest", (event) => {
  event.detail.elt.closest("[popover]")?.hidePopover();
});
