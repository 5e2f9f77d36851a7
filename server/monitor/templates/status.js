"use strict";
(() => {
  const EVERY = 2000, STALE = 10;
  const main = document.querySelector("main"), state = document.querySelector("#state");
  const live = location.protocol === "http:" || location.protocol === "https:";
  let digest = document.body.dataset.digest;
  let taken = Number(document.body.dataset.time);
  // The monitor's clock may differ from this browser's: ages are by the monitor's.
  let offset = live ? taken - Date.now() / 1000 : 0;
  let heard = Date.now();

  const span = (seconds) => {
    const s = Math.max(0, Math.round(seconds));
    if (s < 90) return `${s} s`;
    if (s < 5400) return `${Math.round(s / 60)} min`;
    if (s < 129600) return `${Math.round(s / 3600)} h`;
    return `${Math.round(s / 86400)} days`;
  };
  const clock = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ") + " UTC";

  const tick = () => {
    const now = Date.now() / 1000 + offset;
    for (const each of document.querySelectorAll(".ago")) {
      each.textContent = `${span(now - Number(each.dataset.at))} ago`;
    }
    if (!live) {
      state.className = "stale";
      state.textContent = `Snapshot of ${clock(taken)}, ${span(now - taken)} old. It does not update.`;
      return;
    }
    const silent = (Date.now() - heard) / 1000;
    const stale = silent > STALE;
    state.className = stale ? "stale" : "";
    state.textContent = stale
      ? `Stale: the monitor has not answered for ${span(silent)}. All below is as of ${clock(taken)}.`
      : `Live, as of ${clock(taken)}.`;
  };

  const show = (status) => {
    heard = Date.now();
    taken = status.time;
    offset = taken - heard / 1000;
    if (status.digest === digest) return;
    digest = status.digest;
    const open = new Map([...main.querySelectorAll("details")].map((e) => [e.id, e.open]));
    const held = document.activeElement.closest("main details")?.id;
    const { scrollX, scrollY } = window;
    main.innerHTML = status.main; // escaped by the monitor; the policy runs no script of it
    for (const each of main.querySelectorAll("details")) {
      if (open.has(each.id)) each.open = open.get(each.id);
    }
    if (held) document.getElementById(held)?.querySelector("summary").focus({ preventScroll: true });
    window.scrollTo(scrollX, scrollY);
  };

  const poll = async () => {
    try {
      const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (answer.ok) show(await answer.json());
    } catch {
      // The line on top says since when nothing came.
    }
    tick();
    setTimeout(poll, EVERY);
  };

  tick();
  setInterval(tick, 1000);
  if (live) poll();
})();
