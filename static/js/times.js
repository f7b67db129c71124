// Times in the visitor's language and time zone, by the server's clock.

const skew = Date.now() - Date.parse(document.body.dataset.now);
const locale = [...navigator.languages];
const formats = {
  day: new Intl.DateTimeFormat(locale, { dateStyle: "medium" }),
  minute: new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" }),
  hour: new Intl.DateTimeFormat(locale, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" }),
  clock: new Intl.DateTimeFormat(locale, { hour: "numeric", minute: "2-digit" }),
};

export function tellTimes() {
  for (const time of document.querySelectorAll("time[data-time]")) {
    const at = new Date(time.dateTime);
    const how = time.dataset.time;
    const text = how === "ago" ? ago(at) : formats[how].format(at);
    if (time.textContent !== text) time.textContent = text;
    if (how === "ago" || how === "day") time.title = formats.minute.format(at);
  }
  for (const zone of document.querySelectorAll("[data-zone]")) {
    zone.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
  }
}

export function hour(at) {
  return formats.hour.format(at);
}

// The same words as in src/clock.rs.
function ago(at) {
  const minutes = Math.floor((Date.now() - skew - at) / 60_000);
  if (minutes < 1) return "just now";
  const [count, unit] =
    minutes < 60 ? [minutes, "minute"]
    : minutes < 1_440 ? [Math.floor(minutes / 60), "hour"]
    : [Math.floor(minutes / 1_440), "day"];
  if (unit === "day" && count > 30) return formats.day.format(at);
  return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
}

setInterval(tellTimes, 30_000);
