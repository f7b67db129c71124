// Polls whether new keys have been used: one request for the whole list, less and less often, only
// while the page is visible, and for at most an hour.

import { tellTimes } from "./times.js";

const firstPause = 3_000;
const longestPause = 60_000;
const longestWait = 3_600_000;
let awaited = "";
let pause, askAgain, stopAsking;

// Restarts when the keys being waited for have changed.
export function awaitUses() {
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
    // The session has ended.
    if (answer.status === 204) return;
    if (answer.ok) news = await answer.text();
  } catch {
    // The next request may succeed.
  }
  if (ids !== awaited) return;
  askIn(Math.min(pause * 1.5, longestPause));
  if (!news) return;
  htmx.swap(document.getElementById("first-uses"), news, { swapStyle: "none" });
  tellTimes();
  awaitUses();
}

document.addEventListener("visibilitychange", () => askIn(firstPause));
