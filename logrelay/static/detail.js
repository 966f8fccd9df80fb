/**
 * One line in full: every field, each with the button that makes it a filter, and the whole as JSON to copy.
 *
 * Owns: what an open row shows, and which fields a filter can be made of. It must not know filters or rows: a
 * condition goes to the function that is given. Read `static/filters.js` next.
 */

import { element } from "./dom.js";
import { valueText } from "./rows.js";

/** Characters of a condition that the relay accepts. */
const MAX_CONDITION = 256;

/** A name as a glob for it alone. A comma would end the glob, so "any character" stands for it. */
function globOf(name) {
  return name.replace(/[*?[]/g, "[$&]").replaceAll(",", "?");
}

/** Make the details of a line. `onCondition(kind, value)` is called with "app", "source" or "where" for "only these". */
export function buildDetails(line, onCondition) {
  const details = element("div", "details");
  const facts = element("dl");
  const fact = (name, value, condition) => {
    const shown = typeof value === "object" && value !== null ? JSON.stringify(value, null, 2) : valueText(value);
    const description = element("dd");
    description.append(element("pre", "", shown));
    if (condition) {
      const only = element("button", "only", "only these");
      only.type = "button";
      only.onclick = () => onCondition(...condition);
      description.append(only);
    }
    facts.append(element("dt", "", name), description);
  };
  fact("time", line.timestamp);
  fact("source", line.source, line.source !== "logrelay" && ["source", globOf(line.source)]);
  if (line.app !== undefined) fact("app", line.app, line.app && ["app", globOf(line.app)]);
  fact("message", line.message);
  for (const [key, value] of Object.entries(line.context)) {
    // Numbers cannot be asked for: 1.0 and 1 are the same here, and not the same to the relay.
    const text = typeof value === "string" || typeof value === "boolean" ? `${key}=${value}` : "";
    fact(key, value, text && text.length <= MAX_CONDITION && !/["\0=]/.test(key) && ["where", text]);
  }
  if (line.run !== undefined) fact("run", line.run);
  fact("id", line.id);
  details.append(facts);
  if (navigator.clipboard) { // only where the context is secure
    const copy = element("button", "copy", "copy as JSON");
    copy.type = "button";
    copy.onclick = async () => {
      await navigator.clipboard.writeText(JSON.stringify(line));
      copy.textContent = "copied";
    };
    details.append(copy);
  }
  return details;
}
