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
