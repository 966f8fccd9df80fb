/**
 * Taking something out of the page: to the clipboard, or as a file.
 *
 * Owns: what works without a secure context, where browsers keep the clipboard back, and how lines become CSV. It must
 * not know what is taken out. Read `static/summary.js` next.
 */

import { element } from "./dom.js";

/** Put a text on the clipboard; resolves to whether it could. Call it from a click. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { /* over http there is none, or it is refused */ }
  const field = element("textarea", "offscreen");
  field.value = text;
  // A modal dialog keeps the focus from everything outside it.
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}

/** Have the browser save a text as a file. */
export function saveFile(name, type, text) {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser reads it after the click
}

/** Lines as CSV (RFC 4180). What a spreadsheet would take for a formula begins with an apostrophe. */
export function toCsv(lines) {
  const cell = (value) => `"${(/^[=+\-@\t\r]/.test(value) ? `'${value}` : value).replaceAll('"', '""')}"`;
  const rows = lines.map((line) => [line.timestamp, line.context.severity ?? line.level, line.app ?? "", line.source,
    line.message, JSON.stringify(line.context), line.id]);
  return [["timestamp", "level", "app", "source", "message", "context", "id"], ...rows]
    .map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}
