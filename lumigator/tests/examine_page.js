// What is wrong with the open page for people who do not see, do not point, or need contrast: a list of sentences.
// `wants` is {structure, contrast, focus, width: booleans}. Every <details> is opened first: what it hides counts too.
(wants) => {
  const wrong = new Set();
  const all = (selector) => [...document.querySelectorAll(selector)];
  const called = (element) => {
    const id = element.id ? `#${element.id}` : "";
    const kind = typeof element.className === "string" && element.className ? `.${element.className.trim().replace(/\s+/g, ".")}` : "";
    return `<${element.tagName.toLowerCase()}${id}${kind}> “${(element.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40)}”`;
  };
  const isSeen = (element) => element.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const spoken = (element) => {
    const by = (element.getAttribute("aria-labelledby") || "").split(/\s+/).filter(Boolean);
    const others = by.map((id) => document.getElementById(id)?.textContent || "").join(" ");
    const inside = element.querySelector?.("[aria-label], img[alt]:not([alt=''])");
    return (others || element.getAttribute("aria-label") || element.textContent || element.title ||
      inside?.getAttribute("aria-label") || inside?.alt || "").trim();
  };
  for (const folded of all("details")) folded.open = true;

  // Colours, as the canvas resolves them: [red, green, blue, alpha], 0 to 255 and 0 to 1.
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const known = new Map();
  const rgba = (css) => {
    if (!known.has(css)) {
      context.clearRect(0, 0, 1, 1);
      context.fillStyle = css;
      context.fillRect(0, 0, 1, 1);
      const [red, green, blue, alpha] = context.getImageData(0, 0, 1, 1).data;
      known.set(css, [red, green, blue, alpha / 255]);
    }
    return known.get(css);
  };
  const over = (front, back) => front.slice(0, 3).map((value, place) => value * front[3] + back[place] * (1 - front[3]));
  const ground = (element) => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      const layer = rgba(getComputedStyle(each).backgroundColor);
      if (layer[3] > 0) layers.push(layer);
      if (layer[3] === 1) break;
    }
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    return layers.reverse().reduce((back, front) => over(front, back), isDark ? [18, 18, 18] : [255, 255, 255]);
  };
  const luminance = (colour) => {
    const [red, green, blue] = colour.map((value) => value / 255).map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (css, element) => {
    const back = ground(element);
    let opacity = 1;
    for (let each = element; each; each = each.parentElement) opacity *= Number(getComputedStyle(each).opacity);
    const [red, green, blue, alpha] = rgba(css);
    const [high, low] = [luminance(over([red, green, blue, alpha * opacity], back)), luminance(back)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };

  if (wants.structure) {
    const headings = all("h1").length;
    if (headings !== 1) wrong.add(`it has ${headings} first headings (h1) instead of one`);
    if (!document.title.trim()) wrong.add("it has no title");
    if (!document.documentElement.lang) wrong.add("its language is not said");
    const ids = all("[id]").map((element) => element.id);
    for (const id of ids.filter((one, place) => ids.indexOf(one) !== place)) wrong.add(`the id ${id} is used twice`);
    for (const control of all("input:not([type=hidden], [type=submit]), select, textarea")) {
      const label = [...control.labels].map((each) => each.textContent).join(" ").trim();
      if (!label && !control.getAttribute("aria-label") && !control.getAttribute("aria-labelledby")) {
        wrong.add(`${called(control)} named ${control.name} has no label`);
      }
    }
    for (const cell of all("th:not([scope])")) wrong.add(`${called(cell)} has no scope`);
    for (const element of all("a[href], button, summary")) if (!spoken(element)) wrong.add(`${called(element)} has no name`);
    for (const image of all("img:not([alt])")) wrong.add(`${called(image)} has no alternative text`);
    for (const drawing of all("svg")) {
      const isNamed = drawing.getAttribute("role") === "img" && drawing.getAttribute("aria-label");
      if (!isNamed && !drawing.closest("[aria-hidden=true]")) wrong.add(`${called(drawing)} has no name`);
    }
    for (const element of all("[aria-labelledby], [aria-describedby], label[for]")) {
      for (const name of ["aria-labelledby", "aria-describedby", "for"]) {
        for (const id of (element.getAttribute(name) || "").split(/\s+/).filter(Boolean)) {
          if (!document.getElementById(id)) wrong.add(`${called(element)} points to #${id}, which does not exist`);
        }
      }
    }
  }

  if (wants.contrast) {
    const tell = (element, css) => {
      const ratio = contrast(css, element);
      if (ratio < 4.5) wrong.add(`${called(element)} has a contrast of ${ratio.toFixed(2)}`);
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const range = document.createRange();
    const looked = new Set();
    while (texts.nextNode()) {
      const element = texts.currentNode.parentElement;
      if (!texts.currentNode.data.trim() || looked.has(element)) continue;
      looked.add(element);
      if (element.closest("script, style, noscript, template, title, desc, option, textarea, :disabled") || !isSeen(element)) continue;
      range.selectNodeContents(element);
      const box = range.getBoundingClientRect();
      if (box.width < 2 || box.right < 0 || element.closest(".quiet-words")) continue;
      const style = getComputedStyle(element);
      tell(element, element instanceof SVGElement ? style.fill : style.color);
    }
    for (const control of all("input:not([type=hidden], [type=checkbox], [type=radio]), select, textarea")) {
      if (isSeen(control) && !control.disabled) tell(control, getComputedStyle(control).color);
    }
  }

  if (wants.focus) {
    const seen = new Set();
    for (const element of all("a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']")) {
      const kind = [element, element.parentElement].map((each) => `${each.tagName}.${each.getAttribute("class")}`).join(" in ");
      if (seen.has(kind) || element.disabled || !isSeen(element)) continue;
      seen.add(kind);
      element.focus({ focusVisible: true, preventScroll: true });
      const style = getComputedStyle(element);
      const isRinged = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
      if (document.activeElement !== element) wrong.add(`${called(element)} cannot be reached by key`);
      else if (!isRinged || contrast(style.outlineColor, element.parentElement) < 3) wrong.add(`${called(element)} does not show its focus`);
    }
    document.activeElement?.blur();
  }

  if (wants.width) {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > width) {
      const isInside = (element) => {
        for (let each = element.parentElement; each && each !== document.body; each = each.parentElement) {
          if (getComputedStyle(each).overflowX !== "visible") return true;
        }
        return false;
      };
      const wide = all("body *").filter((element) => element.getBoundingClientRect().right > width + 1 && !isInside(element));
      wrong.add(`at ${width} px it is ${document.documentElement.scrollWidth} px wide: ${wide.slice(0, 2).map(called).join(", ")}`);
    }
  }
  return [...wrong];
}
