// @ts-check
import { createReco } from "../reco.js";
import { explain, remember } from "./explain.js";
import { namesOf } from "./names.js";
import { ago, make } from "./parts.js";

const SOURCES = {
  ml_recommendations: "Published list",
  realtime_recommendations: "Real time",
  trending_fallback: "Trending",
  random_fallback: "Random",
  exploration: "Exploration",
};
const REASONS = {
  similar_readers: "Readers like you read it, by the last daily run",
  similar_readers_now: "Readers like you have read it lately",
  popular_now: "Popular right now",
  random: "Picked at random",
  exploration_new: "New, shown to learn who likes it",
  exploration_random: "Picked at random, to learn who likes it",
};
const PAGE = 20;
const EXCLUDED = 100;
const SETTLE_MS = 600; // several events in a row make one change
const LATE_MS = 1000; // a service that has just started is slow once
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

const endpoint = new URL("..", import.meta.url).href;
/** @param {string} id @returns {any} */
const $ = (id) => document.getElementById(id);
const list = $("feed");

/** @type {import("../reco.js").Reco} */ let reco;
/** @type {string | null} */ let cursor = null;
/** @type {Map<Element, {post: import("../reco.js").Post, stop: () => void}>} */ const shown = new Map();
/** @type {AbortController} */ let request = new AbortController();
/** @type {number | undefined} */ let settling;
/** What failed, to be tried again. @type {(() => Promise<void>) | null} */ let failed = null;
let folds = 0;
let cards = 0;

/** @param {string} source */
function badge(source) {
  const element = make("span", { className: "source", textContent: SOURCES[source] ?? source });
  element.dataset.source = source;
  return element;
}

// The feed

/** @param {import("../reco.js").Post} post */
function card(post) {
  const item = $("post").content.firstElementChild.cloneNode(true);
  const part = (/** @type {string} */ name) => item.querySelector(name);
  item.dataset.post = post.post_id;
  part(".rank").textContent = String(post.rank);
  part(".rank").title = "Rank";
  part(".source").replaceWith(badge(post.source));
  part(".age").textContent = ago(post.created_at);
  part(".age").title = post.created_at ? `Posted ${post.created_at}` : "";
  part(".score").textContent = post.score ? `score ${post.score.toPrecision(3)}` : "";
  part(".title").textContent = post.title ?? `Post ${post.post_id.slice(0, 8)}`;
  part(".reason").textContent = REASONS[post.reason] ?? post.reason;
  part(".title").addEventListener("click", () => item.classList.add("read"));
  // There are many buttons of one name: who hears them is told of which post they are.
  part(".title").id = `title-${++cards}`;
  part("article").setAttribute("aria-labelledby", part(".title").id);
  for (const name of [".like", ".share", ".ask"]) part(name).setAttribute("aria-describedby", part(".title").id);
  for (const [name, done] of [["like", "Liked"], ["share", "Shared"]]) {
    const button = part("." + name);
    button.addEventListener("click", () => {
      button.setAttribute("aria-pressed", "true");
      button.querySelector("span").textContent = done;
      // Once per post. This runs before the click reaches what `observe` listens on.
      setTimeout(() => {
        button.removeAttribute("data-reco");
        reco.flush(); // what a like changes should not wait five seconds
      });
    });
  }
  part(".ask").addEventListener("click", () => explain(post, badge(post.source)));
  shown.set(item, { post, stop: reco.observe(item, post) });
  return item;
}

/** @param {Element} item */
function remove(item) {
  shown.get(item)?.stop();
  shown.delete(item);
  item.remove();
}

/**
 * @param {{limit?: number, cursor?: string | null, exclude?: string[]}} options
 * @param {() => Promise<void>} again asks once more if there is no answer
 */
async function fetchPage(options, again) {
  request.abort();
  const mine = (request = new AbortController());
  list.setAttribute("aria-busy", "true");
  try {
    const answer = await reco.feed({ limit: PAGE, ...options, signal: mine.signal });
    cursor = answer.metadata.next_cursor;
    if (!options.cursor) remember(endpoint, $("user").value).catch(() => {});
    failed = null;
    showNote("");
    return answer;
  } catch (error) {
    if (request === mine) fail(error, again);
    return null;
  } finally {
    if (request === mine) settled();
  }
}

function settled() {
  list.setAttribute("aria-busy", "false");
  $("more").textContent = failed ? "Try again" : "More";
  $("more").hidden = !failed && !cursor;
}

/** @param {any} error @param {() => Promise<void>} again */
function fail(error, again) {
  failed = again;
  // An error of the service has a status; a browser's own words say little.
  const words = navigator.onLine ? "The service does not answer." : "You seem to be offline.";
  showNote(error.status ? `The service answers with an error: ${error.message ?? error.status}` : words);
}

async function more() {
  if (!cursor || list.getAttribute("aria-busy") === "true") return;
  append(await fetchPage({ cursor }, more));
}

/** Replace what the reader has not come to yet; what is on the screen and above stays where it is. */
async function refresh() {
  if (!shown.size) return begin();
  const items = /** @type {HTMLElement[]} */ ([...list.children]);
  const below = items.findIndex((item) => item.getBoundingClientRect().top > innerHeight);
  const stale = below < 0 ? [] : items.slice(below);
  const kept = items.filter((item) => shown.has(item) && !stale.includes(item));
  const exclude = kept.slice(-EXCLUDED).map((item) => String(item.dataset.post));
  const answer = await fetchPage({ exclude }, refresh);
  if (!answer) return;
  const before = stale.filter((item) => shown.has(item)).map((item) => item.dataset.post);
  const fresh = answer.posts.filter((post) => !before.slice(0, PAGE).includes(post.post_id));
  const same = answer.posts.every((post, at) => post.post_id === before[at]);
  stale.forEach(remove);
  if (answer.posts.length && !same) {
    const fold = make("li", { className: "fold", id: `fold-${++folds}`, tabIndex: -1, textContent: "Your feed from here on" });
    list.append(fold);
    toast(fresh.length, fold);
  }
  append(answer);
}

/** @param {number} fresh @param {HTMLElement} fold */
function toast(fresh, fold) {
  const text = fresh ? `Your feed has changed: ${fresh} new ${fresh === 1 ? "post" : "posts"}` : "Your feed has changed";
  const look = make("button", { type: "button", textContent: "Show" });
  const box = make("div", {}, make("span", { textContent: text }), look);
  $("toast").replaceChildren(box);
  look.addEventListener("click", () => {
    box.remove();
    scrollTo({ top: fold.getBoundingClientRect().top + scrollY - $("top").clientHeight - 8 });
    fold.focus({ preventScroll: true });
  });
  setTimeout(() => box.remove(), 12000);
}

/** @param {import("../reco.js").FeedAnswer | null} answer */
function append(answer) {
  if (!answer) return;
  list.append(...answer.posts.map(card));
  showFacts(answer.metadata);
  settleEnd();
}

// What stands above it

/** @param {import("../reco.js").FeedAnswer["metadata"]} metadata */
function showFacts(metadata) {
  const mix = make("span", { className: "mix" });
  /** @type {Record<string, number>} */ const counts = {};
  for (const { post } of shown.values()) counts[post.source] = (counts[post.source] ?? 0) + 1;
  for (const [source, n] of Object.entries(counts)) {
    const part = badge(source);
    part.append(` ${n}`);
    mix.append(part);
  }
  const { experiment } = metadata;
  const facts = [
    ["Posts from", mix],
    ["Model", metadata.model_version],
    ["Computed", ago(metadata.generated_at)],
    ["Fallback because", plain(metadata.fallback_reason), "warn"],
    ["Degraded", plain(metadata.degraded), "warn"],
    ["Experiment", experiment && `${experiment.name}, arm ${experiment.arm}`],
  ];
  $("facts").replaceChildren(
    ...facts
      .filter(([, value]) => value)
      .map(([name, value, className = ""]) =>
        make("div", { className }, make("dt", { textContent: name }), make("dd", {}, value ?? "")),
      ),
  );
}

/** @param {string | null} code */
const plain = (code) => code && code.replaceAll("_", " ");

/** @param {string} text */
function showNote(text) {
  $("note").textContent = text;
  $("note").hidden = !text;
}

// Users

/** @param {string} userId */
async function become(userId) {
  reco?.close();
  reco = createReco({ endpoint, userId, onError: ({ message }) => showNote(`An event was refused: ${message}`) });
  [...list.children].forEach(remove);
  cursor = null;
  $("facts").replaceChildren();
  $("toast").replaceChildren();
  $("end-text").textContent = "";
  history.replaceState(null, "", `?user=${userId}`);
  reco.live(() => {
    clearTimeout(settling);
    settling = setTimeout(refresh, SETTLE_MS);
  });
  scrollTo({ top: 0, behavior: "instant" });
  await begin();
}

/** The first page. */
async function begin() {
  let answer = await fetchPage({}, begin);
  if (answer?.metadata.fallback_reason === "recommendations_late") {
    const mine = request;
    await new Promise((resolve) => setTimeout(resolve, LATE_MS));
    if (request !== mine) return; // another user, or the feed has changed
    answer = (await fetchPage({}, begin)) ?? answer;
  }
  if (answer) [...list.children].forEach(remove);
  append(answer);
}

async function start() {
  const response = await fetch(new URL("demo/users", endpoint));
  const { users, error } = await response.json();
  if (error) return showNote(error.message);
  failed = null;
  const named = new URLSearchParams(location.search).get("user");
  const asked = named && UUID.test(named) ? named.toLowerCase() : null;
  const choices = users.map((user) => [user.user_id, habits(user)]);
  if (asked && !choices.some(([id]) => id === asked)) choices.unshift([asked, "from the address"]);
  if (!choices.length) return showNote("There are no users yet. `reco seed` makes some.");
  offer(choices);
  $("user").disabled = false;
  $("user").value = asked ?? choices[0][0];
  $("user").addEventListener("change", () => become($("user").value));
  await become($("user").value);
  if (named && !asked) showNote(`The address asks for the user “${named.slice(0, 40)}”, which is no UUID. This is another one.`);
}

/** @param {[string, string][]} choices ids, and what is said about them where there is room for it */
function offer(choices) {
  const names = namesOf(choices.map(([id]) => id));
  const options = choices.map(([id]) => make("option", { value: id }));
  const phone = matchMedia("(max-width: 34rem)");
  const write = () =>
    options.forEach((option, at) => (option.textContent = phone.matches ? names[at] : `${names[at]}, ${choices[at][1]}`));
  phone.addEventListener("change", write);
  write();
  $("user").replaceChildren(...options);
}

/** @param {{interactions: number, has_list: boolean}} user */
function habits({ interactions, has_list }) {
  if (!interactions) return "new here";
  const events = `${interactions.toLocaleString("en")} ${interactions === 1 ? "event" : "events"}`;
  return has_list ? events : `${events}, no published list`;
}

const nearEnd = new IntersectionObserver(([entry]) => entry.isIntersecting && more(), { rootMargin: "600px" });
/** The observer speaks up on changes only: ask it anew once the list has grown. */
function settleEnd() {
  $("end-text").textContent = cursor ? "" : shown.size ? "That is all for now." : "There is nothing to show.";
  nearEnd.unobserve($("end"));
  if (cursor) nearEnd.observe($("end"));
}

/** Begin, and again if the service was not there. */
async function enter() {
  await start().catch((error) => fail(error, enter));
  settled();
}

$("more").addEventListener("click", () => (failed ?? more)());
enter();
