// @ts-check
import { useCallback, useRef } from "react";

/** @type {typeof import("./react.js").usePostTracking} */
export function usePostTracking(reco, item) {
  const latest = useRef(item);
  latest.current = item;
  const stop = useRef(() => {});
  /** @type {Exclude<import("./reco.js").Item, string>} */
  const post = typeof item === "string" ? { id: item } : item;

  // A callback instead of an effect: it also hears of an element that comes later or is replaced.
  const ref = useCallback(
    (/** @type {Element | null} */ element) => {
      stop.current();
      stop.current = element ? reco.observe(element, latest.current) : () => {};
    },
    [reco, post.post_id ?? post.id, post.tracking?.request_id],
  );
  const track = useCallback(
    (/** @type {string} */ type, /** @type {Record<string, unknown> | undefined} */ extra) =>
      reco.track(type, latest.current, extra),
    [reco],
  );
  return { ref, track };
}
