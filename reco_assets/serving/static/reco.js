// @ts-check
/** @typedef {import("./reco.js").Reco} Reco @typedef {import("./reco.js").Item} Item */

const EVERY_MS = 5000;
const AT_ONCE = 20;
const BATCH = 50;
const BATCH_CHARS = 20000; // 60 KB as UTF-8: 64 may outlive a page
const QUEUE = 1000;
const KEEP_MS = 6.5 * 864e5; // after a week the service refuses them
const VIEW_MS = 1000;
const LATE_MS = 20000;

/** Random: pages that failed together return apart. @param {number} failures */
const backoff = (failures) => Math.random() * Math.min(6e4, 1e3 * 2 ** failures);

/** @param {number | bigint} number @param {number} digits */
const hex = (number, digits) => number.toString(16).padStart(digits, "0");

/** How ids of that time begin. @param {number} ms */
const timePart = (ms) => hex(ms, 12).replace(/.{4}$/, "-$&");

let last = 0;

/** A UUID of version 7: sorted as they were made, here and in the index. */
function newId() {
  last = Math.max(last + 1, Date.now());
  const [random] = crypto.getRandomValues(new BigUint64Array(1));
  return timePart(last) + hex(random, 16).replace(/(..)(..)/, "-70$1-80$2-");
}

const idOf = (item) => item.post_id ?? item.id ?? item;

/** @type {typeof import("./reco.js").withTracking} */
export function withTracking(answer) {
  const { request_id, generation_id, model_version, experiment } = answer.metadata;
  const shared = { request_id, generation_id, model_version, experiment: experiment?.name, arm: experiment?.arm };
  for (const post of answer.posts) {
    const { source, rank, propensity } = post;
    post.tracking = { source, rank, propensity, ...shared };
  }
  return answer;
}

/** @type {typeof import("./reco.js").createReco} */
export function createReco({ endpoint = "", userId, token, onError = () => {} } = {}) {
  const base = endpoint.replace(/\/$/, "");
  const prefix = `reco:${userId ?? ""}:`; // one user's events never go out as another's
  const open = new AbortController();
  const inFlight = new Set();
  let bearer, timer;
  let turn = Promise.resolve();
  let [fresh, failures, notBefore, size] = [0, 0, 0, BATCH];

  // A key per event: no tab rewrites what others wrote.
  const stores = [{}];
  try {
    if (localStorage) stores.unshift(localStorage);
  } catch {} // forbidden by the browser: memory will do
  const queued = (start = prefix) =>
    stores.flatMap(Object.keys).filter((key) => key.startsWith(start)).sort();
  const drop = (key) => stores.forEach((store) => delete store[key]);

  const given = new Map(); // for what is tracked by its id
  const give = (item) => item.tracking && given.set(idOf(item), item.tracking);

  /** @type {Reco["track"]} */
  function track(type, item, extra) {
    const id = newId();
    const post_id = idOf(item);
    give(item);
    const text = JSON.stringify({
      id,
      post_id,
      interaction_type: type,
      client_time: new Date(),
      metadata: { ...given.get(post_id), ...extra },
    });
    stores.some((store) => {
      try {
        return (store[prefix + id] = text);
      } catch {} // full: the next one
    });
    queued().slice(0, -QUEUE).forEach(drop);
    if (++fresh >= AT_ONCE) flush();
    else timer ??= setTimeout(flush, EVERY_MS);
  }

  /** The oldest events that are not on their way; none after close(). */
  function take() {
    const batch = [];
    let chars = 0;
    for (const key of open.signal.aborted ? [] : queued()) {
      const text = stores.find((store) => store[key])?.[key];
      if (!text || inFlight.has(key)) continue;
      chars += text.length;
      if (batch.length && (batch.length >= size || chars > BATCH_CHARS)) break;
      batch.push([key, text]);
    }
    return batch;
  }

  /** @param {boolean} [leaving] send before this returns */
  async function send(leaving) {
    const url = base + "/api/track";
    const batch = take();
    if (!batch.length) return;
    let body = "";
    try {
      batch.forEach(([key]) => inFlight.add(key));
      const user = userId ? `"user_id":${JSON.stringify(userId)},` : "";
      body = `{${user}"interactions":[${batch.map(([, text]) => text)}]}`;
      if (leaving && !("keepalive" in Request.prototype)) throw 0;
      const response = await fetch(url, {
        method: "POST",
        keepalive: !batch[0][1][BATCH_CHARS],
        headers: authorization(),
        body, // as text, which needs no preflight
        signal: AbortSignal.timeout?.(LATE_MS),
      });
      const answer = await response.json().catch(() => ({}));
      const stored = answer.tracked >= 0;
      // One event spoils the batch, or it takes too long: halving finds out.
      size = [400, 408, 413, 422].includes(response.status) ? batch.length >> 1 : BATCH;
      if (stored || (!size && response.status !== 408)) {
        batch.forEach(([key]) => drop(key));
        for (const refusal of answer.errors ?? [answer.error ?? { code: "refused" }]) {
          const event = await new Response(batch[refusal.index ?? 0][1]).json().catch(() => ({}));
          onError({ ...refusal, event });
        }
      }
      if (stored) failures = 0;
      else rest(response.headers.get("Retry-After"));
    } catch {
      size = batch.length >> 1 || size;
      rest();
      if (leaving && !token) navigator.sendBeacon?.(url, body);
    }
    batch.forEach(([key]) => inFlight.delete(key));
  }

  /** @param {string | null} [after] seconds, or a date */
  function rest(after) {
    const ms = Number(after) * 1e3 || Date.parse(after ?? "") - Date.now() || 0;
    notBefore = performance.now() + Math.max(0, Math.min(ms, 36e5)) + backoff(failures++);
  }

  const authorization = () => (bearer ? { Authorization: "Bearer " + bearer } : {});
  async function renewed() {
    bearer = await Promise.race([
      token?.(),
      new Promise((_, fail) => setTimeout(fail, LATE_MS, new Error("token() is late"))),
    ]);
    return authorization();
  }

  const due = () => navigator.onLine && performance.now() >= notBefore && take().length;
  const next = () => due() && send();

  async function drain() {
    while (due())
      try {
        await renewed(); // holds up no other tab
        // One tab at a time, where there are locks.
        await (navigator.locks?.request(prefix, next).catch(next) ?? next());
      } catch {
        rest();
      }
    if (queued().length && !open.signal.aborted)
      timer ??= setTimeout(flush, Math.max(notBefore - performance.now(), 0) || EVERY_MS);
  }

  function flush() {
    timer = void clearTimeout(timer);
    fresh = 0;
    return (turn = turn.then(drain, drain));
  }

  function leave() {
    if (performance.now() >= notBefore && !token == !bearer) send(true);
  }

  /** @type {Map<Element, {item: Item, timer?: number}>} */ const watched = new Map();
  const viewed = new Set();
  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, intersectionRatio, intersectionRect } of entries) {
        const watch = watched.get(target);
        // What is taller than two screens is never half visible: half a screen is enough.
        if (intersectionRatio < 0.5 && intersectionRect.height < innerHeight / 2) pause(target);
        else if (watch) watch.timer ??= setTimeout(seen, VIEW_MS, target, watch.item);
      }
    },
    { threshold: [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1] },
  );
  function pause(element) {
    const watch = watched.get(element);
    if (watch) watch.timer = void clearTimeout(watch.timer);
  }
  function unwatch(element) {
    pause(element);
    watched.delete(element);
    observer.unobserve(element);
  }
  function seen(element, item) {
    unwatch(element);
    if (!viewed.has(idOf(item))) track("view", item);
    viewed.add(idOf(item));
  }
  function turned() {
    for (const element of watched.keys()) {
      pause(element);
      observer.unobserve(element);
      if (!document.hidden) observer.observe(element);
    }
    if (document.hidden) leave();
  }

  /** @type {Reco["observe"]} */
  function observe(element, item) {
    const heard = ({ target, button }) => {
      const marked = button < 2 && target.closest("[data-reco], a[href]");
      if (marked) track(marked.dataset.reco ?? "click", item);
    };
    const watch = { item };
    give(item);
    unwatch(element); // it may have shown another post
    watched.set(element, watch);
    observer.observe(element);
    const clicks = ["click", "auxclick"];
    for (const type of clicks) element.addEventListener(type, heard, open);
    return () => {
      for (const type of clicks) element.removeEventListener(type, heard);
      if (watched.get(element) === watch) unwatch(element);
    };
  }

  /** @type {Reco["feed"]} */
  async function feed({ limit, cursor, exclude, signal } = {}) {
    const query = new URLSearchParams();
    for (const [name, value] of Object.entries({ user_id: userId, limit, cursor, exclude }))
      if (value?.toString()) query.set(name, value.toString());
    const response = await fetch(base + "/api/feeds?" + query, { headers: await renewed(), signal });
    const answer = await response.json().catch(() => ({}));
    if (!answer.posts)
      throw Object.assign(new Error(answer.error?.message), answer.error, { status: response.status });
    withTracking(answer).posts.forEach(give);
    return answer;
  }

  /** @type {Reco["live"]} */
  function live(callback) {
    let socket;
    let tries = 0;
    const on = new AbortController();
    const retry = () => on.signal.aborted || setTimeout(connect, 1e3 + backoff(tries++));
    async function connect() {
      try {
        await renewed();
        if (on.signal.aborted) return;
        const url = new URL(base + "/api/feeds/live" + (userId ? "?user_id=" + userId : ""), location.href);
        socket = new WebSocket(url.href.replace("http", "ws"), bearer ? ["reco.bearer", bearer] : []);
        socket.onclose = retry;
        socket.onopen = () => {
          if (tries) callback({ type: "reconnected" }); // who knows what was missed
          tries = 0;
        };
        socket.onmessage = ({ data }) => on.signal.aborted || callback(JSON.parse(data));
      } catch {
        retry();
      }
    }
    function stop() {
      on.abort();
      socket?.close();
    }
    open.signal.addEventListener("abort", stop, on);
    // Else the browser would not keep the page for the way back.
    addEventListener("pagehide", () => socket?.close(), on);
    connect();
    return stop;
  }

  function close() {
    leave();
    open.abort();
    for (const element of watched.keys()) unwatch(element);
  }

  addEventListener("pagehide", leave, open);
  addEventListener("online", flush, open);
  document.addEventListener("visibilitychange", turned, open);
  const old = timePart(Date.now() - KEEP_MS);
  queued("reco:").filter((key) => key.slice(-36) < old).forEach(drop);
  if (queued().length) timer = setTimeout(flush, EVERY_MS);
  return { track, observe, feed, live, flush, close };
}
