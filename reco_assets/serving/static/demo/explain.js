// @ts-check
import { namesOf } from "./names.js";
import { make } from "./parts.js";

const REASONS = {
  ml_recommendations: "From the list that the daily run published.",
  realtime_recommendations: "From what similar readers have done up to this moment.",
  trending_fallback: "What most people are reading.",
  random_fallback: "Picked at random, because nothing else was there.",
  exploration: "A place kept for posts that nobody knows yet, to learn who likes them.",
};

/** What is known about each post; a post leaves the list once it is read, so it is asked for beforehand. */
const known = new Map();
let askedAt = "";

/** Remember the explanations of a user's list as it is now. @param {string} endpoint @param {string} userId */
export async function remember(endpoint, userId) {
  if (askedAt !== userId) known.clear();
  askedAt = userId;
  const response = await fetch(new URL(`api/recommendations/${userId}?limit=100`, endpoint));
  if (!response.ok || askedAt !== userId) return;
  for (const each of (await response.json()).recommendations)
    if (each.explanation) known.set(each.post_id, each.explanation);
}

/** @param {number} share */
const percent = (share) => (share > 0 && share < 0.01 ? "under 1 %" : `${Math.round(share * 100)} %`);

/** Why it is here and not another. @param {import("../reco.js").Post} post */
function chance({ source, propensity }) {
  if (source === "exploration") return "This place: drawn, to try out a post";
  const others = Math.round((1 - (propensity ?? 1)) * 100);
  return others && `${others} of 100 places try out other posts; this one does not`;
}

/** @param {number} hours */
const hoursAgo = (hours) =>
  hours < 1 ? "within the hour" : hours < 48 ? `${Math.round(hours)} h ago` : `${Math.round(hours / 24)} days ago`;

/** Open the panel. @param {import("../reco.js").Post} post @param {Node} badge of its source */
export function explain(post, badge) {
  const panel = /** @type {HTMLDialogElement} */ (document.getElementById("why"));
  const part = (/** @type {string} */ name) => /** @type {HTMLElement} */ (panel.querySelector(name));
  part("#why-title").textContent = post.title ?? post.post_id;
  const facts = [
    ["Source", badge],
    ["Rank", String(post.rank)],
    ["Score", String(post.score)],
    ["Left to chance", chance(post)],
    ["Post", post.post_id],
  ].filter(([, value]) => value);
  part("#why-body").replaceChildren(
    make("p", { textContent: REASONS[post.source] ?? post.reason }),
    make("dl", { className: "pairs" }, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    ...readers(known.get(post.post_id)),
  );
  panel.showModal();
}

/** @param {any} why */
function readers(why) {
  const title = make("h3", { textContent: "Similar readers, as of now" });
  if (!why) return [title, make("p", { textContent: "None of them has read it lately." })];
  const others = why.n_readers - why.readers.length;
  const names = namesOf(why.readers.map((reader) => reader.user_id ?? ""));
  const items = why.readers.map((reader, at) =>
    row(
      reader.user_id ? names[at] : "A reader like you",
      `similarity ${reader.similarity}, read it ${hoursAgo(reader.hours_ago)}`,
      reader.share,
    ),
  );
  if (why.popularity_share) items.push(row("Everybody else", "popularity of the last hours", why.popularity_share));
  return [
    title,
    make("p", { textContent: why.summary }),
    make("ul", { className: "voters" }, ...items),
    make("p", {
      className: "small",
      textContent:
        (others > 0 ? `${others} more similar ${others === 1 ? "reader" : "readers"}. ` : "") +
        `The post's age leaves ${percent(why.freshness)} of what they add up to.`,
    }),
  ];
}

/** @param {string} name @param {string} detail @param {number} share of the score */
function row(name, detail, share) {
  return make(
    "li",
    {},
    make("span", {}, name, make("br"), make("small", { textContent: detail })),
    make("span", { className: "share-of", textContent: percent(share) }),
    make("meter", { value: share, ariaLabel: `${percent(share)} of the score` }),
  );
}
