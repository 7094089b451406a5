// @ts-check

/** An element. @param {string} tag @param {Record<string, any>} properties @param {(Node | string)[]} children */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** How long ago an instant was, in words. @param {string | null | undefined} instant */
export function ago(instant) {
  if (!instant) return "";
  const minutes = Math.max(0, (Date.now() - Date.parse(instant)) / 60000);
  if (minutes < 1) return "just now";
  if (minutes < 90) return `${Math.round(minutes)} min ago`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} h ago` : `${Math.round(minutes / 1440)} days ago`;
}
