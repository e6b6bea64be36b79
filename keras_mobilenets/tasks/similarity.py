"""How well vectors tell identities apart: the nearest ones, one picture of each, pairs at a rate of false accepts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

FAR = 1e-3
THRESHOLDS = np.linspace(-1 - 1e-6, 1 + 1e-6, 2001)  # of a curve; float32 products of unit vectors may exceed 1
BLOCK = 1024  # vectors that are compared with all others at a time


def nearest(vectors: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Whether the 1st, 2nd ... nearest other vector is of the same identity: (vectors, count), False beyond the last.

    Args:
        vectors: (vectors, dimension), of length 1.
        labels: (vectors,) numbers of identities.
        count: how many neighbours.
    """
    found = np.zeros((len(vectors), count), bool)
    for start, cosines in _blocks(vectors):
        cosines[np.arange(len(cosines)), start + np.arange(len(cosines))] = -np.inf  # not itself
        most = min(count, len(vectors) - 1)
        best = np.argpartition(-cosines, most - 1, axis=1)[:, :most] if most else np.zeros((len(cosines), 0), int)
        order = np.argsort(-np.take_along_axis(cosines, best, 1), axis=1, kind="stable")
        alike = labels[np.take_along_axis(best, order, 1)] == labels[start : start + len(cosines), None]
        found[start : start + len(cosines), :most] = alike
    return found


def known_by_one(vectors: np.ndarray, labels: np.ndarray) -> float | None:
    """The share of pictures that are told rightly where each identity is known by one picture.

    The mean over as many choices as the smallest identity has pictures: all first ones, all second ones, and so on.

    Args:
        vectors: (vectors, dimension), of length 1.
        labels: (vectors,) numbers of identities.

    Returns:
        None of fewer than two identities, or where one has a single picture.
    """
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2 or counts.min() < 2:
        return None
    places = [np.flatnonzero(labels == name) for name in names]
    shares = []
    for choice in range(counts.min()):
        known = np.array([one[choice] for one in places])
        asked = np.setdiff1d(np.arange(len(labels)), known)
        said = names[np.argmax(vectors[asked] @ vectors[known].T, axis=1)]
        shares.append(np.mean(said == labels[asked]))
    return float(np.mean(shares))


def true_accepts(vectors: np.ndarray, labels: np.ndarray, far: float = FAR) -> float | None:
    """Of all pairs of one identity the share that is accepted where at most `far` of all others are.

    Args:
        vectors: (vectors, dimension), of length 1.
        labels: (vectors,) numbers of identities.
        far: rate of false accepts, in (0, 1).

    Returns:
        None where there are no pairs of one identity, or fewer than 1 / far others, which say nothing of such a rate.
    """
    counts = np.unique(labels, return_counts=True)[1].astype(np.int64)
    others = (len(labels) ** 2 - int((counts**2).sum())) // 2
    allowed = int(far * others)
    if not allowed or counts.max() < 2:
        return None
    highest = np.zeros(0, np.float32)  # of all others those that can be accepted, and the next one
    for cosines, alike in _pairs(vectors, labels):
        highest = np.concatenate([highest, cosines[~alike]])
        highest = np.partition(highest, -allowed - 1)[-allowed - 1 :] if len(highest) > allowed else highest
    accepted = [np.sum(cosines[alike] > highest.min()) for cosines, alike in _pairs(vectors, labels)]
    return int(np.sum(accepted)) / int((counts * (counts - 1) // 2).sum())


def accepts(vectors: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rates of false and of true accepts over all pairs, as the threshold of the cosine falls from 1 to -1.

    Args:
        vectors: (vectors, dimension), of length 1.
        labels: (vectors,) numbers of identities.

    Returns:
        Two arrays, rising; empty where there are no pairs of one identity, or of two.
    """
    counts = np.zeros((2, len(THRESHOLDS) - 1), np.int64)
    for cosines, alike in _pairs(vectors, labels):
        for kind in (False, True):
            counts[int(kind)] += np.histogram(cosines[alike == kind], THRESHOLDS)[0]
    if not counts.sum(1).all():
        return np.zeros(0), np.zeros(0)
    above = counts[:, ::-1].cumsum(1)
    false, true = above / above[:, -1:]
    return false, true


def verification(one: Any, other: Any, same: Any, *, far: float = FAR) -> dict[str, float]:
    """Decides for given pairs whether both are of one identity, as in the protocol of LFW and its kind.

    `tar = mean(cosine > t of pairs that are the same)` at the lowest threshold t with `mean(cosine > t of the others)
    <= far`.

    Args:
        one: (pairs, dimension) vectors of any length > 0.
        other: (pairs, dimension), those that they are compared with.
        same: (pairs,) of bool, whether a pair is of one identity.
        far: rate of false accepts, in (0, 1).

    Returns:
        "tar", "threshold" (of the cosine) and "accuracy", the share of pairs told rightly at the best threshold.

    Raises:
        ValueError: pairs do not fit, or there are only pairs of one kind.

    Reference:
        Huang et al., Labeled Faces in the Wild, 2007; Schroff et al., arXiv:1503.03832, section 4.

    Example:

    >>> verification([[1, 0], [0, 1]], [[2, 0], [1, 0]], [True, False], far=0.5)["tar"]
    1.0
    """
    first, second = unit(np.asarray(one, np.float32)), unit(np.asarray(other, np.float32))
    right = np.asarray(same, bool)
    if first.ndim != 2 or first.shape != second.shape or right.shape != first.shape[:1]:
        raise ValueError(
            "`one` and `other` must be (pairs, dimension), `same` (pairs,). "
            f"Received: {first.shape}, {second.shape} and {right.shape}"
        )
    if not 0 < far < 1:
        raise ValueError(f"`far` must be in (0, 1). Received: far={far}")
    if right.all() or not right.any():
        raise ValueError("`same` must have pairs of one identity and others. Received: only one kind")
    cosines = (first * second).sum(-1)
    highest = np.sort(cosines[~right])[::-1]
    allowed = int(far * len(highest))
    order = np.argsort(-cosines, kind="stable")
    # Accepted are the first so many, of equal ones all.
    whole = np.append(np.diff(cosines[order]) != 0, True)
    told = np.cumsum(np.where(right[order], 1, -1))[whole]
    return {
        "tar": float(np.mean(cosines[right] > highest[allowed])),
        "threshold": float(highest[allowed]),
        "accuracy": float((np.sum(~right) + max(int(told.max()), 0)) / len(right)),
    }


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; those of 0 stay so."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _blocks(vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The cosines of some vectors with all, and which the first of them is."""
    for start in range(0, len(vectors), BLOCK):
        yield start, vectors[start : start + BLOCK] @ vectors.T


def _pairs(vectors: np.ndarray, labels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The cosine of each pair once, and whether it is of one identity."""
    for start, cosines in _blocks(vectors):
        later = np.arange(len(vectors)) > start + np.arange(len(cosines))[:, None]
        alike = labels[start : start + len(cosines), None] == labels
        yield cosines[later], alike[later]
