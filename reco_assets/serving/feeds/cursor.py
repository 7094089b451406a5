"""The cursor of a feed: the rest of its list, as text.

Nothing is kept on the server, so any worker can continue a list, after a restart, after a publication, and
while the database is gone. Layout, little-endian, before base64url without padding:

    version u8, CRC-32 u32 of all that follows and of the user's id,
    number of posts u16, posts served before u16, propensities 2 × f64, made at i64 (µs since 1970) or MIN,
    generation 16 bytes (0: none), four short texts (length u8, UTF-8; empty: none),
    ids 16 bytes each, kinds u8 each, scores f32 each

The checksum tells a damaged cursor, and another user's, from a good one. It is no signature: whoever forges
one chooses among posts that the filters let through anyway.
"""

import math
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct, pack, unpack_from
from struct import error as StructError
from typing import Final
from uuid import UUID
from zlib import crc32

from reco_assets.errors import BadInput
from reco_assets.serving.feeds.exploration import Propensities
from reco_assets.serving.feeds.lists import KINDS, Entry, Origin

VERSION: Final = 1
LONGEST: Final = 16_384
"""Characters; 500 posts (the most of RECO_FEED_LENGTH) and the longest texts need less."""

_MOST_POSTS: Final = 500
_MOST_SERVED: Final = 65_535
_HEAD: Final = Struct("<BI")
_FIXED: Final = Struct("<HHddq16s")
_NO_TIME: Final = -(2**63)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_YEAR_3000: Final = 32_503_680_000_000_000
_NO_ID: Final = bytes(16)
_LARGEST_F32: Final = (2 - 2**-23) * 2.0**127
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rest:
    """What of a list has not been served yet.

    Attributes:
        entries: best first; not filtered yet.
        served: how many posts went before.
        origin: what all pages say.
    """

    entries: list[Entry]
    served: int
    origin: Origin


def encode(rest: Rest, user_id: UUID) -> str:
    """The cursor for one user; scores keep seven digits."""
    origin, entries = rest.origin, rest.entries[:_MOST_POSTS]
    made = origin.generated_at
    fixed = _FIXED.pack(
        len(entries),
        min(rest.served, _MOST_SERVED),
        origin.propensities.ordinary,
        origin.propensities.explored,
        _NO_TIME if made is None else (made - _EPOCH) // timedelta(microseconds=1),
        _NO_ID if origin.generation_id is None else UUID(origin.generation_id).bytes,
    )
    texts = [
        (text or "").encode()[:255].decode(errors="ignore").encode()  # cut between characters
        for text in (origin.model_version, origin.fallback_reason, origin.experiment, origin.arm)
    ]
    body = b"".join(
        [
            fixed,
            *(bytes((len(text),)) + text for text in texts),
            bytes.fromhex("".join([entry[0] for entry in entries]).replace("-", "")),
            bytes([entry[1] for entry in entries]),
            _packed([entry[2] for entry in entries]),
        ]
    )
    return urlsafe_b64encode(_HEAD.pack(VERSION, _checksum(body, user_id)) + body).rstrip(b"=").decode()


def decode(text: str, user_id: UUID) -> Rest:
    """Read a cursor back.

    Raises:
        BadInput: damaged, of another version, another user's, or not ours at all.
    """
    if not text or len(text) > LONGEST or not _BASE64URL.fullmatch(text) or len(text) % 4 == 1:
        raise BadInput("The cursor is not one of this service. Begin the list anew, without a cursor.")
    data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    try:
        version, checksum = _HEAD.unpack_from(data)
        if version != VERSION:
            raise BadInput(f"The cursor is of version {version}, not {VERSION}. Begin the list anew.")
        body = data[_HEAD.size :]
        if checksum != _checksum(body, user_id):
            raise BadInput("The cursor is damaged, or another user's. Begin the list anew.")
        return _read(body)
    except (ValueError, IndexError, StructError) as error:
        raise BadInput("The cursor cannot be read. Begin the list anew, without a cursor.") from error


def _read(body: bytes) -> Rest:
    n, served, ordinary, explored, made, generation = _FIXED.unpack_from(body)
    position = _FIXED.size
    texts = []
    for _ in range(4):
        length = body[position]
        texts.append(body[position + 1 : position + 1 + length].decode() or None)
        position += 1 + length
    ids_end, kinds_end = position + 16 * n, position + 17 * n
    if n > _MOST_POSTS or len(body) != kinds_end + 4 * n:
        raise ValueError("length")
    digits = body[position:ids_end].hex()
    ids = [_dashed(digits[start : start + 32]) for start in range(0, 32 * n, 32)]
    kinds = body[ids_end:kinds_end]
    scores = unpack_from(f"<{n}f", body, kinds_end)
    if (
        any(kind >= len(KINDS) for kind in kinds)
        or not all(map(math.isfinite, scores))
        or not (0 <= ordinary <= 1 and 0 <= explored <= 1)
        or len(set(ids)) < n
        or not (made == _NO_TIME or 0 <= made <= _YEAR_3000)
    ):
        raise ValueError("content")
    model_version, fallback_reason, experiment, arm = texts
    origin = Origin(
        generation_id=None if generation == _NO_ID else str(UUID(bytes=generation)),
        model_version=model_version,
        generated_at=None if made == _NO_TIME else _EPOCH + timedelta(microseconds=made),
        fallback_reason=fallback_reason,
        experiment=experiment,
        arm=arm,
        propensities=Propensities(ordinary, explored),
    )
    return Rest(list(zip(ids, kinds, scores, strict=True)), served, origin)


def _checksum(body: bytes, user_id: UUID) -> int:
    return crc32(user_id.bytes, crc32(body))


def _dashed(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _packed(scores: list[float]) -> bytes:
    if not -_LARGEST_F32 <= sum(scores) <= _LARGEST_F32 or max(map(abs, scores), default=0) > _LARGEST_F32:
        scores = [_fits(score) for score in scores]  # rare, and slow
    return pack(f"<{len(scores)}f", *scores)


def _fits(score: float) -> float:
    return max(-_LARGEST_F32, min(_LARGEST_F32, score)) if math.isfinite(score) else 0.0
