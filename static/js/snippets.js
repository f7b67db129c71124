// Code snippets: their tabs, and the buttons that copy.

import { say } from "./messages.js";

// Turns the sections of each box into tabs.
export function makeTabs() {
  for (const box of document.querySelectorAll("[data-tabs]")) makeTabsOf(box);
}

function makeTabsOf(box) {
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

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  const copied = await copy(source);
  // The focus stays on the button, unless the text has to be copied by hand.
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
