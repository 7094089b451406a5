// An app with React: posts that come, change and go.
import { usePostTracking } from "/react.js";
import { createReco } from "/reco.js";

const { createElement, StrictMode } = window.React;
const reco = createReco({ userId: new URLSearchParams(location.search).get("user") });
let renders = 0;

function Post({ post, className }) {
  const { ref, track } = usePostTracking(reco, post);
  renders++;
  const button = createElement("button", { onClick: () => track("share", { where: "menu" }) }, "Share");
  const like = createElement("button", { "data-reco": "like", className: "like" }, post.title);
  return createElement("article", { ref, className, id: post.post_id, style: { height: 150 } }, like, button);
}

const root = window.ReactDOM.createRoot(document.querySelector("main"));
const render = (posts, className = "") =>
  root.render(
    createElement(StrictMode, null, posts.map((post) => createElement(Post, { key: post.post_id, post, className }))),
  );
Object.assign(window, { page: { reco, render, renders: () => renders } });
