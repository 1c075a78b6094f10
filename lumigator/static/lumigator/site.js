// Conveniences. Every page works without them.
"use strict";
(() => {
  // Theme: auto, light or dark. The admin's own switch uses the same key and attribute, so both agree.
  const root = document.documentElement;
  const themes = ["auto", "light", "dark"];
  const stored = () => {
    try { return localStorage.getItem("theme"); } catch { return null; }
  };
  const theme = () => (themes.includes(stored()) ? stored() : "auto");
  const wear = (name) => {
    root.dataset.theme = name;
    for (const button of document.querySelectorAll("[data-theme-toggle]")) {
      button.hidden = false;
      button.textContent = `Theme: ${name}`;
    }
  };
  root.classList.add("js");
  root.dataset.theme = theme(); // in the head, before the first paint

  const next = () => {
    const name = themes[(themes.indexOf(theme()) + 1) % themes.length];
    try { localStorage.setItem("theme", name); } catch { /* a private window: for this page only */ }
    wear(name);
  };

  const isTyping = (target) => target.closest("input, select, textarea, [contenteditable], dialog");

  document.addEventListener("DOMContentLoaded", () => {
    wear(theme());
    for (const button of document.querySelectorAll("[data-theme-toggle]")) button.addEventListener("click", next);
    for (const button of document.querySelectorAll("[data-print]")) {
      button.hidden = false;
      button.addEventListener("click", () => window.print());
    }
  });

  // ← and → (or k and j) follow the page's previous and next links.
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || isTyping(event.target)) return;
    const scrolls = event.target.closest(".scroll, .tall");
    const rel = { ArrowLeft: "prev", k: "prev", ArrowRight: "next", j: "next" }[event.key];
    if (!rel || (scrolls && event.key.startsWith("Arrow"))) return;
    document.querySelector(`a[rel~="${rel}"]`)?.click();
  });

  // A filter form sends itself when a choice changes; a form that destroys asks first.
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form[data-autosubmit]");
    if (form) form.requestSubmit();
  });
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
  });
})();
