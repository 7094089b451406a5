// A page of an app: posts under a client. What tests call is on `page`.
import { createReco, withTracking } from "/reco.js";

const query = new URLSearchParams(location.search);
const refused = [];
const refusals = [];
const stops = new Map();
let tokens = 0;

export function show(ids, className = "") {
  for (const id of ids) {
    const article = document.createElement("article");
    article.id = id;
    article.className = className;
    article.innerHTML = `<a href="posts.html?next">Read</a> <button data-reco="like">Like</button> <i>nothing</i>`;
    document.querySelector("#posts").append(article);
    stops.set(id, reco.observe(article, { post_id: id, tracking: { source: "test", rank: stops.size + 1 } }));
  }
}

const token = query.get("token");
const reco = createReco({
  endpoint: query.get("endpoint") ?? "",
  userId: query.get("user") ?? undefined,
  token: token ? () => (tokens++, query.has("later") ? Promise.resolve(token) : token) : undefined,
  onError: (...told) => (refused.push(told[0].code), refusals.push(told)),
});
const queued = () => Object.keys(localStorage).filter((key) => key.startsWith("reco:")).sort();
Object.assign(window, { page: { reco, show, stops, refused, refusals, queued, withTracking, tokens: () => tokens } });
