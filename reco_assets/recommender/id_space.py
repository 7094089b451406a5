"""Codes for the ids of a fit and for those that came since."""

from typing import Any

import numpy as np
import numpy.typing as npt

from reco_assets.recommender.interaction_log import rows_of

Array = npt.NDArray[Any]


class IdSpace:
    """Ids of the fit have their row as code, later ones are numbered behind them in order of arrival.

    One thread adds; others may look up meanwhile. They may be given a code that is newer than the arrays
    they hold, so they compare it with a length of their own.

    A later id takes about 300 bytes.
    """

    def __init__(self, fitted: Array) -> None:
        self._fitted = fitted
        self._keys = np.ascontiguousarray(fitted).reshape(-1, 16).view("S16").reshape(-1)
        self._later: list[bytes] = []
        self._codes: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._keys) + len(self._later)

    @property
    def n_fitted(self) -> int:
        """Ids of the fit."""
        return len(self._keys)

    def code(self, id_bytes: bytes) -> int:
        """The code of 16 bytes; -1 for an unknown id."""
        row = int(self._keys.searchsorted(np.bytes_(id_bytes)))
        if row < len(self._keys) and self._fitted[row].tobytes() == id_bytes:
            return row
        return self._codes.get(id_bytes, -1)

    def id_of(self, code: int) -> bytes:
        """The 16 bytes of an id."""
        n_fitted = len(self._keys)
        return bytes(self._fitted[code].tobytes()) if code < n_fitted else self._later[code - n_fitted]

    def ids_of(self, codes: Array) -> list[bytes]:
        """The ids of (n,) codes, 16 bytes each."""
        later = np.flatnonzero(codes >= len(self._keys))
        joined = self._fitted.take(codes, axis=0, mode="clip").tobytes()
        ids = [joined[start : start + 16] for start in range(0, 16 * len(codes), 16)]
        for position in later.tolist():
            ids[position] = self.id_of(int(codes[position]))
        return ids

    def add(self, ids: Array) -> Array:
        """(n,) int32 codes of (n, 16) ids; unknown ones are numbered as they come."""
        codes = rows_of(self._fitted, ids)
        for position in np.flatnonzero(codes < 0).tolist():
            id_bytes = ids[position].tobytes()
            code = self._codes.get(id_bytes)
            if code is None:
                code = len(self)
                self._later.append(id_bytes)  # before the code is known, so that it always leads to an id
                self._codes[id_bytes] = code
            codes[position] = code
        return codes.astype(np.int32)

    def later_ids(self, start: int) -> Array:
        """(m, 16) uint8: the ids from code `start` on, which is not of the fit."""
        joined = b"".join(self._later[start - self.n_fitted :])
        return np.frombuffer(joined, dtype=np.uint8).reshape(-1, 16)
