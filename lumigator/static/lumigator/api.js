// The browsable API: send the JSON of a form with its method, and show the answer on the page.
"use strict";
document.addEventListener("submit", async (event) => {
  const form = event.target;
  const method = form.dataset.api;
  if (!method || event.defaultPrevented) return;
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  const field = (name) => form.querySelector(`[name="${name}"]`)?.value;
  const body = field("_content");
  const headers = { Accept: "application/json", "X-CSRFToken": field("csrfmiddlewaretoken") };
  if (body !== undefined) headers["Content-Type"] = field("_content_type") || "application/json";
  const show = (first, text) => {
    const strong = document.createElement("strong");
    strong.textContent = first;
    const pre = document.createElement("pre");
    pre.className = "answer";
    pre.append(strong, "\n\n", text);
    document.getElementById("answer").replaceChildren(pre);
    pre.scrollIntoView({ block: "nearest" });
  };
  try {
    const response = await fetch(form.getAttribute("action"), { method, headers, body });
    let text = await response.text();
    try { text = JSON.stringify(JSON.parse(text), null, 4); } catch { /* not JSON: shown as it came */ }
    show(`${method} → HTTP ${response.status} ${response.statusText}`, text);
  } catch (error) {
    show(`${method}: no answer`, String(error));
  }
  button.disabled = false;
});
