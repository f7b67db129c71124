// Fields that belong together, the theme, and forms that must be sent only once.

import { warn } from "./messages.js";

// The search field shows no more of a pasted key than the list does.
document.addEventListener("input", (event) => {
  const field = event.target;
  if (field.id !== "key-search") return;
  const short = field.value.replace(/(tsend_\w\w)\w{32}(\w{4})/g, "$1…$2");
  if (short !== field.value) field.value = short;
});

// A choice in one of two related fields never leaves the other contradicting it.
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

// The theme changes at once, without a page load.
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

// A form without htmx is sent once: a second click would lose the answer to the first, and with it a
// key that is shown only there.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.method !== "post" || form.hasAttribute("hx-post") || event.defaultPrevented) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "true";
});

window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});
