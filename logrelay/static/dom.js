/**
 * Helpers that make and change elements.
 *
 * Owns: that text reaches the page as text. Log lines are hostile input: textContent is the only way in, here and
 * in every module that uses this one. It must not know what the text means. Read `static/format.js` next.
 */

/** Make an element. An empty class name or no text leaves it without. */
export function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Make a button of type "button" that does something. */
export function button(className, text, onClick) {
  const made = element("button", className, text);
  made.type = "button";
  made.onclick = onClick;
  return made;
}

/** Change a text only when it is another: a screen reader reads an assigned text again, and it costs a layout. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Replace the children of `parent` by what `make()` returns, but only when `key` is another than the last time. */
export function redraw(parent, key, make) {
  if (parent.dataset.key === key) return;
  parent.dataset.key = key;
  parent.replaceChildren(...make());
}
