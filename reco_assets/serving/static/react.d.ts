import type { Item, Reco } from "./reco.js";

/**
 * Track a component that shows a post.
 *
 *     const { ref, track } = usePostTracking(reco, post);
 *     return <article ref={ref}> … <button onClick={() => track("like")}>Like</button></article>;
 *
 * @param reco of `createReco`, the same for every post.
 * @param item the post; one of `reco.feed()` carries where it came from.
 * @returns `ref` for the element that shows the post (see `Reco.observe`), `track` for everything else.
 */
export function usePostTracking(
  reco: Reco,
  item: Item,
): {
  ref: (element: Element | null) => void;
  track: (type: string, extra?: Record<string, unknown>) => void;
};
