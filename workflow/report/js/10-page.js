"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => root.dataset.theme || (dark.matches ? "dark" : "light");
  const show = () => {
    const next = current() === "dark" ? "light" : "dark";
    button.textContent = next === "dark" ? "Dark" : "Light";
    button.setAttribute("aria-label", "Switch to the " + next + " theme");
  };
  // A page opened from a file may be refused its storage: the choice then lasts as long as the page.
  const stored = (action) => { try { return action(); } catch { return null; } };
  const kept = stored(() => localStorage.getItem("pocketvlm-theme"));
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = current() === "dark" ? "light" : "dark";
    stored(() => localStorage.setItem("pocketvlm-theme", root.dataset.theme));
    show();
  });
  dark.addEventListener("change", show);
  show();
  // A link into a folded part unfolds it first.
  const reveal = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    target.scrollIntoView({ block: "center" });
  };
  // What is short enough for paper is unfolded for it and folded again after it.
  let unfolded = [];
  addEventListener("beforeprint", () => {
    unfolded = [...document.querySelectorAll("details.print:not([open])")];
    for (const part of unfolded) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of unfolded) part.open = false; });
  addEventListener("hashchange", reveal);
  if (location.hash) reveal();
})();
