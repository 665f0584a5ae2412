// Page check: what axe-core does not measure, of everything that is seen now; returns a list of faults in words.
(() => {
  const faults = [];
  const seen = (element) => {
    const {width, height} = element.getBoundingClientRect();
    return width > 1 && height > 1 && element.checkVisibility({opacityProperty: true, visibilityProperty: true});
  };
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const parsed = (colour) => {  // CSS colours of any form as red, green, blue in 0 to 255 and alpha in 0 to 1
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((c, i) => c * a + below[i] * (1 - a));
  const behind = (element) => {  // what is painted where an element is, without pictures and gradients
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const layer = parsed(getComputedStyle(e).backgroundColor);
      if (layer[3]) layers.push(layer);
      if (layer[3] === 1) break;
    }
    return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const called = (element) => {
    const words = element.getAttribute("aria-label") || element.innerText || element.value || "";
    const box = element.closest("[id]:not([id^=component])")?.id ?? "";
    return `${element.tagName.toLowerCase()} ${JSON.stringify(words.trim().slice(0, 30))} in #${box}`;
  };

  const edge = (element) => {  // contrast of a border, or of what fills an element, with what is around it
    const {borderTopWidth, borderTopColor} = getComputedStyle(element), around = behind(element.parentElement);
    const line = parseFloat(borderTopWidth) ? contrast(over(parsed(borderTopColor), around), around) : 1;
    return Math.max(line, contrast(behind(element), around));
  };
  const boxes = (element) => {  // a field, and what is drawn tightly around it
    const found = [element], {height} = element.getBoundingClientRect();
    for (let e = element.parentElement; e.getBoundingClientRect().height < height + 24; e = e.parentElement) found.push(e);
    return found;
  };

  // letters: 4.5 to 1, large ones 3 to 1
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const read = new Set();
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || read.has(element) || !seen(element)) continue;
    read.add(element);
    if (element.closest("svg, script, style, video, :disabled, [aria-hidden=true]")) continue;
    const {color, fontSize, fontWeight} = getComputedStyle(element);
    const least = parseFloat(fontSize) >= (fontWeight >= 700 ? 18.66 : 24) ? 3 : 4.5;
    const below = behind(element), ratio = contrast(over(parsed(color), below), below);
    if (ratio < least) faults.push(`letters at ${ratio.toFixed(2)}: ${called(element)}`);
  }

  // controls: their border, or what fills them, 3 to 1 against what is around them; at least 24 px
  for (const element of document.querySelectorAll("input, textarea, select, button, [role=button], a[href], summary")) {
    if (element.disabled || element.type === "file" || !seen(element)) continue;
    const style = getComputedStyle(element);
    const field = !["A", "SUMMARY", "BUTTON"].includes(element.tagName) && element.type !== "range";
    const ratio = Math.max(...boxes(element).map(edge));
    if (field && ratio < 3) faults.push(`border at ${ratio.toFixed(2)}: ${called(element)}`);
    const sign = element.innerText?.trim() ? null : element.querySelector(":scope svg");
    if (sign) {
      const below = behind(element), strength = contrast(over(parsed(getComputedStyle(sign).color), below), below);
      if (strength < 3) faults.push(`sign at ${strength.toFixed(2)}: ${called(element)}`);
    }
    const whole = ["checkbox", "radio"].includes(element.type) ? element.closest("label") ?? element : element;
    const {width, height} = whole.getBoundingClientRect();
    const inLine = element.tagName === "A" && style.display === "inline";
    if (Math.min(width, height) < 23.9 && !inLine)
      faults.push(`${width.toFixed(0)} x ${height.toFixed(0)} px: ${called(element)}`);
  }

  // nothing is cut off at the side, headings come in order
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 0) faults.push(`${wide} px wider than the window`);
  for (const element of document.querySelectorAll(".gradio-container *")) {
    const {left, right, width} = element.getBoundingClientRect();
    if (width > 1 && (right > innerWidth + 1 || left < -1) && seen(element) && !element.closest("[data-wide], .table-wrap")
        && !faults.some((fault) => fault.startsWith("beyond")))
      faults.push(`beyond the side (${left.toFixed(0)} to ${right.toFixed(0)} px): ${called(element)}`);
  }
  let level = 0;
  for (const {tagName} of [...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter(seen)) {
    if (+tagName[1] > level + 1) faults.push(`${tagName} after H${level}`);
    level = +tagName[1];
  }
  return faults;
})()
