"""Which axes would set a body upright, facing the sensor, with left on its left: a remedy in words."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from mmcl.skeletons.believable.posture import Posture

LETTERS = "xyz"
UPRIGHT, TURNED = 0.35, 0.75  # shares of the second axis, and of another, in the direction from hips to head
FAR = 0.8  # metres by which people keep away from a sensor


def straightening(found: Posture) -> np.ndarray:
    """The (3, 3) signed permutation that sets bodies right: y up, towards the sensor, not mirrored.

    Of those that are right by what is known of a body, the one that changes least is taken. Where handedness is not
    known, the coordinates are taken for right-handed, so that the answer is a turn and never mirrors anybody.
    """
    up, forward, place = (np.nan_to_num(np.array(each)) for each in (found.up, found.forward, found.place))
    depth = 2 / max(float(np.abs(place).max()), FAR)  # what is far along one axis is far from the sensor
    wanted = -1.0 if found.handedness < 0 else 1.0
    best, most = np.eye(3), -np.inf
    for order, signs in product(permutations(range(3)), product((1.0, -1.0), repeat=3)):
        matrix = np.eye(3)[list(order)] * np.array(signs)[:, None]
        if np.linalg.det(matrix) * wanted < 0:
            continue
        score = 8 * (matrix @ up)[1] + depth * (matrix @ place)[2] - (matrix @ forward)[2] / 2 + np.trace(matrix) / 100
        if score > most:
            best, most = matrix, score
    return best


def words_of(matrix: np.ndarray) -> str:
    """What ``--axes`` takes for a signed permutation: the letter of each column, with a minus where it is negated."""
    rows = np.abs(matrix).argmax(axis=0)
    return "".join(("-" if matrix[row, column] < 0 else "") + LETTERS[row] for column, row in enumerate(rows))


def advice(matrix: np.ndarray) -> str:
    """The same in a sentence, with the option that does it."""
    words = words_of(matrix)
    return f"{described(words)} (--axes={words})"


def described(words: str) -> str:
    """What ``--axes`` does, in words."""
    matrix = matrix_of(words)
    if np.abs(np.diag(matrix)).sum() < 3:
        return f"reorder the coordinates, the columns are {', '.join(sign + letter for sign, letter in _pairs(words))}"
    negative = [letter for letter, value in zip(LETTERS, np.diag(matrix), strict=True) if value < 0]
    return f"negate {' and '.join(negative)}" + (", a half turn" if len(negative) == 2 else "")


def compose(taken: str, further: str) -> str:
    """``--axes`` of a file whose columns were already taken to be ``taken``, and need ``further`` behind that."""
    return words_of(matrix_of(further) @ matrix_of(taken))


def _pairs(words: str) -> list[tuple[str, str]]:
    return [("-" if at and words[at - 1] == "-" else "", letter) for at, letter in enumerate(words) if letter != "-"]


def matrix_of(words: str) -> np.ndarray:
    """The signed permutation that ``--axes`` of these words is."""
    matrix = np.zeros((3, 3))
    for column, (sign, letter) in enumerate(_pairs(words)):
        matrix[LETTERS.index(letter), column] = -1.0 if sign else 1.0
    return matrix
