"""Who may be shown what: everything that keeps a post out of a list, for every recommender alike."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from reco_assets.errors import BadInput

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Masks:
    """A user is not shown posts they interacted with, ineligible ones, and those of blocked authors.

    Blocked for a user are the authors they hide and themselves. All three relations are in CSR form:
    `…_indptr` int64, the others int32.

    Attributes:
        eligible: (n_posts,) bool.
        seen_indptr, seen_posts: the posts of each user's interactions.
        blocked_indptr, blocked_authors: the authors each user is not shown.
        author_indptr, author_posts: the posts of each author.
    """

    eligible: Array
    seen_indptr: Array
    seen_posts: Array
    blocked_indptr: Array
    blocked_authors: Array
    author_indptr: Array
    author_posts: Array

    @classmethod
    def build(
        cls,
        seen: sp.csr_array,
        *,
        eligible: Array | None = None,
        post_author: Array | None = None,
        user_author: Array | None = None,
        hidden_user: Array | None = None,
        hidden_author: Array | None = None,
    ) -> Self:
        """Put the masks together; what is left out forbids nothing.

        Args:
            seen: (n_users, n_posts) CSR whose stored entries are the interactions.
            eligible: (n_posts,) bool.
            post_author: (n_posts,) code of the post's author, -1 when unknown.
            user_author: (n_users,) code the user has as an author, -1 for none.
            hidden_user: (m,) row of the user who hides …
            hidden_author: (m,) … the author with this code.

        Raises:
            BadInput: lengths or codes do not fit `seen`.
        """
        n_users, n_posts = seen.shape
        eligible = np.ones(n_posts, dtype=bool) if eligible is None else np.asarray(eligible, dtype=bool)
        post_author = _codes(post_author, n_posts)
        user_author = _codes(user_author, n_users)
        hidden_user = _codes(hidden_user, 0)
        hidden_author = _codes(hidden_author, 0)
        for name, array, length in (
            ("eligible", eligible, n_posts),
            ("post_author", post_author, n_posts),
            ("user_author", user_author, n_users),
            ("hidden_author", hidden_author, len(hidden_user)),
        ):
            if array.shape != (length,):
                raise BadInput(f"{name} has shape {array.shape}; expected ({length},).")
        if len(hidden_user) and not (hidden_user.min() >= 0 and hidden_user.max() < n_users):
            raise BadInput(f"hidden_user holds a row outside 0 … {n_users - 1}.")
        if len(hidden_author) and hidden_author.min() < 0:
            raise BadInput("hidden_author holds a negative code; leave out pairs whose author is unknown.")

        writers = np.flatnonzero(user_author >= 0)
        blocking = np.concatenate([writers, hidden_user])
        blocked = np.concatenate([user_author[writers], hidden_author])
        written = np.flatnonzero(post_author >= 0)
        n_authors = 1 + max((int(codes.max()) for codes in (blocked, post_author) if len(codes)), default=-1)
        blocked_indptr, blocked_authors = _relation(blocking, blocked, n_users)
        author_indptr, author_posts = _relation(post_author[written], written, n_authors)
        return cls(
            eligible=eligible,
            seen_indptr=seen.indptr.astype(np.int64),
            seen_posts=seen.indices.astype(np.int32),
            blocked_indptr=blocked_indptr,
            blocked_authors=blocked_authors,
            author_indptr=author_indptr,
            author_posts=author_posts,
        )

    def for_history(self, seen_posts: Array, blocked_authors: Array) -> "Masks":
        """The masks of a single user, row 0, with another history; the large arrays are shared.

        Args:
            seen_posts: (m,) int32.
            blocked_authors: (l,) int32, as from `blocked_by`.
        """
        return Masks(
            eligible=self.eligible,
            seen_indptr=np.array([0, len(seen_posts)]),
            seen_posts=seen_posts,
            blocked_indptr=np.array([0, len(blocked_authors)]),
            blocked_authors=blocked_authors,
            author_indptr=self.author_indptr,
            author_posts=self.author_posts,
        )

    def blocked_by(self, user: int) -> Array:
        """(l,) int32: the authors whose posts this user is not shown, the user among them."""
        return self.blocked_authors[self.blocked_indptr[user] : self.blocked_indptr[user + 1]]

    @property
    def n_authors(self) -> int:
        """Codes of authors there are."""
        return len(self.author_indptr) - 1

    def allowed(self, user: int) -> Array:
        """(n_posts,) bool: what this user may be shown."""
        allowed = self.eligible.copy()
        allowed[self.seen_posts[self.seen_indptr[user] : self.seen_indptr[user + 1]]] = False
        for author in self.blocked_by(user):
            allowed[self.author_posts[self.author_indptr[author] : self.author_indptr[author + 1]]] = False
        return allowed


def _codes(codes: Array | None, length: int) -> Array:
    return np.full(length, -1, dtype=np.int32) if codes is None else np.asarray(codes, dtype=np.int32)


def _relation(rows: Array, columns: Array, n_rows: int) -> tuple[Array, Array]:
    order = np.lexsort((columns, rows))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_rows))]).astype(np.int64)
    return indptr, columns[order].astype(np.int32)
