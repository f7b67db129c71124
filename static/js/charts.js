// Charts: the value under the pointer, and by the arrow keys.

import { hour } from "./times.js";

// Gives each new chart its keys.
export function makeCharts() {
  for (const chart of document.querySelectorAll("[data-chart]")) makeChart(chart);
}

function makeChart(chart) {
  delete chart.dataset.chart;
  const plot = chart.querySelector("svg");
  const bars = [...plot.querySelectorAll("g")];
  const readout = chart.querySelector("[data-readout]");
  const hint = readout.textContent;
  let at = -1;

  const show = (wanted) => {
    if (wanted === at) return;
    bars[at]?.classList.remove("shown");
    at = wanted;
    bars[at]?.classList.add("shown");
    readout.textContent = at < 0 ? hint : tell(bars[at]);
  };

  // The title would be a second text under the pointer, in UTC.
  for (const bar of bars) bar.querySelector("title").remove();
  // The wrapper has the focus, because a picture has no keys.
  const stop = chart.querySelector(".plot");
  stop.tabIndex = 0;
  stop.setAttribute("role", "group");
  stop.setAttribute("aria-label", `${plot.getAttribute("aria-label")}. Use the arrow keys to read each value.`);
  plot.setAttribute("aria-hidden", "true");
  stop.addEventListener("pointermove", (event) => show(bars.indexOf(event.target.closest("g"))));
  stop.addEventListener("pointerleave", () => show(-1));
  stop.addEventListener("blur", () => show(-1));
  stop.addEventListener("keydown", (event) => {
    const last = bars.length - 1;
    const wanted = {
      ArrowLeft: at < 0 ? last : Math.max(at - 1, 0),
      ArrowRight: Math.min(at + 1, last),
      Home: 0,
      End: last,
      Escape: -1,
    }[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    show(wanted);
  });
}

function tell({ dataset }) {
  const when = dataset.from ? hour(new Date(dataset.from)) : dataset.when;
  return `${when}: ${dataset.accepted} accepted, ${dataset.refused} refused`;
}
