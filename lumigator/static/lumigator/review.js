// The review by key. Every button works without it.
"use strict";
(() => {
  document.addEventListener("DOMContentLoaded", () => {
    const form = document.querySelector("form[data-review]");
    if (!form) return;
    const box = form.querySelector("textarea");
    const keys = form.querySelector("[data-keys]");
    if (keys) keys.hidden = false;
    const press = (decision) => form.querySelector(`button[value="${decision}"]:not(:disabled)`)?.click();

    // A choice is sent once: a second press on a slow line would decide the next document unseen.
    let sent = false;
    form.addEventListener("submit", (event) => {
      if (sent) event.preventDefault();
      sent = true;
    });
    window.addEventListener("pageshow", () => { sent = false; });

    document.addEventListener("keydown", (event) => {
      if (event.target === box) {
        if (event.key === "Escape") box.blur();
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) press("edited");
        return;
      }
      if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.repeat) return;
      if (event.target.closest("input, select, textarea, dialog")) return;
      if (event.key === "e" && box) {
        event.preventDefault(); // or the letter would be typed into the box
        box.focus();
      }
      if (event.key === "a") press("accepted");
      if (event.key === "r") press("rejected");
    });
  });
})();
