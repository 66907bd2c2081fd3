// What the pages need in the browser: put new content without losing the focus, figures into the drawing, times in the reader's zone.
window.headrace = (() => {
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const whole = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  let heard = 0;

  const ago = (seconds) =>
    seconds < 1 ? "now" : seconds < 60 ? `${Math.floor(seconds)} s ago` : seconds < 3600 ? `${Math.floor(seconds / 60)} min ago`
      : seconds < 86400 ? `${Math.floor(seconds / 3600)} h ago` : `${Math.floor(seconds / 86400)} d ago`;

  const tell = (time) => {
    const date = new Date(Number(time.dataset.ms));
    const told = "ago" in time.dataset ? ago((Date.now() - date) / 1000) : clock.format(date);
    if (time.textContent !== told) time.textContent = told;
    if (!time.title) time.title = whole.format(date);
  };

  const put = (id, html) => {
    heard = Date.now();
    const place = document.getElementById(id);
    if (!place || place.innerHTML === html) return;
    const held = place.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
    const known = new Set([...place.querySelectorAll("[data-row]")].map((row) => row.dataset.row));
    const scrolled = [...place.querySelectorAll(".scroll")].map((element) => element.scrollLeft);
    place.innerHTML = html;
    place.querySelectorAll("time[data-ms]").forEach(tell);
    place.querySelectorAll(".scroll").forEach((element, n) => (element.scrollLeft = scrolled[n] ?? 0));
    if (known.size) place.querySelectorAll("[data-row]").forEach((row) => known.has(row.dataset.row) || row.classList.add("new"));
    if (held !== undefined) place.querySelector(`[data-focus="${CSS.escape(held)}"]`)?.focus({ preventScroll: true });
  };

  const states = ["up", "partly", "away", "unknown", "idle", "slow", "brisk", "fast"];
  const draw = (changes) => {
    heard = Date.now();
    for (const [key, [text, state]] of Object.entries(changes))
      for (const element of document.querySelectorAll(`[data-k="${key}"]`))
        if (key.startsWith("node:") || key.startsWith("edge:")) {
          if (!element.classList.contains(state)) {
            element.classList.remove(...states);
            if (state) element.classList.add(state);
          }
        } else if (element.textContent !== text) element.textContent = text;
  };

  setInterval(() => {
    document.querySelectorAll("time[data-ago]").forEach(tell);
    document.documentElement.classList.toggle("cut", heard > 0 && Date.now() - heard > 10000);
  }, 1000);
  return { put, draw };
})();
