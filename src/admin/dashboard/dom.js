// Elements without HTML: whatever comes from the wire becomes text nodes and never markup.

/** An element with properties and children; texts among them become text nodes. */
export function el(name, properties, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets a text, if it is another one: what did not change is not drawn again. */
export function put(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function attribute(element, name, value) {
  if (value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}

/**
 * A table that becomes a list of cards on a narrow screen, and stays a table to a screen reader (its roles are said,
 * as `display` would take them away). `columns`: `{title, class}`.
 */
export function table(caption, columns) {
  const head = el("tr", { role: "row" });
  for (const column of columns) head.append(el("th", { role: "columnheader", scope: "col", class: column.class }, column.title));
  const body = el("tbody", { role: "rowgroup" });
  const whole = el("table", { role: "table", "aria-label": caption }, el("thead", { role: "rowgroup" }, head), body);
  return { whole, body };
}

/** A row of such a table; `cells` are elements, texts or lists of both. */
export function row(columns, cells) {
  const line = el("tr", { role: "row" });
  columns.forEach((column, at) => {
    const kind = at === 0 ? "th" : "td";
    const role = at === 0 ? "rowheader" : "cell";
    const content = [cells[at]].flat();
    line.append(el(kind, { role, scope: at === 0 ? "row" : null, class: column.class, "data-title": column.title }, ...content));
  });
  return line;
}
