/** What an event's metadata say about where its post came from. */
export interface Tracking {
  source?: string;
  rank?: number;
  propensity?: number;
  request_id?: string;
  generation_id?: string | null;
  model_version?: string | null;
  experiment?: string;
  arm?: string;
  [name: string]: unknown;
}

/** A post: one of a feed, or any object with its id, or the id alone. */
export type Item = string | { post_id?: string; id?: string; tracking?: Tracking };

export interface Post {
  id: string;
  post_id: string;
  title?: string | null;
  author_id?: string | null;
  created_at?: string | null;
  /** `ml_recommendations`, `realtime_recommendations`, `trending_fallback`, `random_fallback` or `exploration`. */
  source: string;
  score: number;
  /** From 1, over all pages. */
  rank: number;
  /** A stable code, such as `similar_readers`. */
  reason: string;
  /** The probability with which this post stood at this rank. */
  propensity: number;
  /** Added by `feed()` and `withTracking`: what the events of this post carry. */
  tracking?: Tracking;
}

export interface FeedAnswer {
  posts: Post[];
  metadata: {
    request_id: string;
    sources: Record<string, number>;
    fallback_reason: string | null;
    degraded: string | null;
    model_version: string | null;
    generation_id: string | null;
    generated_at: string | null;
    experiment: { name: string; arm: string } | null;
    next_cursor: string | null;
    [name: string]: unknown;
  };
}

/** An event as it is sent. */
export interface SentEvent {
  id: string;
  post_id: string;
  interaction_type: string;
  /** ISO 8601. */
  client_time: string;
  metadata: Record<string, unknown>;
}

/** An event that was refused for good. */
export interface Refusal {
  /** Of the service: docs/service.md lists them. */
  code: string;
  message?: string;
  /** The event; empty if the browser's storage held no JSON. */
  event: Partial<SentEvent>;
  /** Its place in the request that carried it. */
  index?: number;
}

/** What `feed` throws when the service answers with an error. */
export interface FeedError extends Error {
  status: number;
  code?: string;
  request_id?: string;
}

export interface Options {
  /** Where the service is, such as `https://reco.example`; default: the page's own origin. */
  endpoint?: string;
  /**
   * The user's id. With a token it may be left out or must be the token's subject. Give it wherever one
   * browser serves several users: what is queued under one id never goes out under another.
   */
  userId?: string;
  /** Gives the current bearer token (RECO_AUTH=jwt), within 20 seconds; asked before every request. */
  token?: () => string | Promise<string>;
  /** Told about every event that the service refused for good, one by one. */
  onError?: (refusal: Refusal) => void;
}

/** What `live` tells: ask for the feed again. */
export type LiveMessage =
  | { type: "feed_changed"; reason: "your_events" | "new_generation"; generation_id: string }
  | { type: "reconnected" };

export interface Reco {
  /**
   * Queue an event.
   * @param type `view`, `click`, `like`, `share`, or another type that the service knows.
   * @param item the post, or its id. Where it came from is sent along if this client knows: from `item`, from
   *   an element it observed, or from its last feed with that post.
   * @param extra further metadata; all of an event's metadata together are at most 2 KB.
   */
  track(type: string, item: Item, extra?: Record<string, unknown>): void;
  /**
   * Track an element that shows a post: a view once half of it was visible for a second (once per post and
   * client), a click on a link in it, and the type that `data-reco="like"` names on what is clicked.
   * @returns stops it.
   */
  observe(element: Element, item: Item): () => void;
  /**
   * A page of the user's feed.
   * @throws FeedError
   */
  feed(options?: {
    limit?: number;
    /** `metadata.next_cursor` of the page before. */
    cursor?: string | null;
    /** Ids of posts to leave out. */
    exclude?: string[];
    signal?: AbortSignal;
  }): Promise<FeedAnswer>;
  /**
   * Be told when the feed has changed; reconnects by itself.
   * @returns stops it.
   */
  live(callback: (message: LiveMessage) => void): () => void;
  /** Send what is queued; resolves when that was tried. What failed stays queued. */
  flush(): Promise<void>;
  /** Send what is queued and stop listening; what remains waits for this user's next client. */
  close(): void;
}

/** One client per user and page. */
export function createReco(options?: Options): Reco;

/** For answers of `GET /api/feeds` that your own backend fetched; `feed()` does it itself. */
export function withTracking<T extends FeedAnswer>(answer: T): T;
