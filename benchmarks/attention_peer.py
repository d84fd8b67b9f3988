"""AttentionAgent (Tang, Nguyen, Ha 2020), written from its paper and the layout of its released weights."""

import numpy as np
import torch

SIDE, PATCH, STRIDE, BEST, HIDDEN, KEY = 96, 7, 4, 10, 16, 4
ACROSS = (SIDE - PATCH) // STRIDE + 1  # 23 patches in a row and in a column


class AttentionAgent:
    """Their agent, from one vector of parameters: self-attention names the places that an LSTM looks at.

    ``params`` is layer by layer (queries, keys, LSTM, output), biases before weights, each row by row.
    """

    def __init__(self, params: np.ndarray, action_size: int) -> None:
        inputs = PATCH * PATCH * 3
        attention = [(KEY,), (KEY, inputs)] * 2
        lstm = [(4 * HIDDEN,), (4 * HIDDEN,), (4 * HIDDEN, HIDDEN), (4 * HIDDEN, 2 * BEST)]
        shapes = [*attention, *lstm, (action_size,), (action_size, HIDDEN)]
        sizes = [int(np.prod(shape)) for shape in shapes]
        if params.shape != (sum(sizes),):
            raise ValueError(f"an agent with {action_size} actions has {sum(sizes)} parameters, not {params.shape}")
        parts = np.split(params.astype(np.float32), np.cumsum(sizes)[:-1])
        self._parts = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        self.start()

    def start(self) -> None:
        """Begin an episode: the state of the LSTM is zero."""
        self._hidden, self._cell = np.zeros(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32)

    def importance(self, image: np.ndarray) -> np.ndarray:
        """Return how much all patches together look at each one, (529,), for an image (96, 96, 3) in [0, 1]."""
        query_bias, query, key_bias, key = self._parts[:4]
        seen = patches(image)
        queries = (seen @ query.T + query_bias) / np.float32(seen.shape[1] ** 0.5)
        logits = queries @ (seen @ key.T + key_bias).T
        total: np.ndarray = torch.from_numpy(logits).softmax(1).sum(0).numpy()
        return total

    def act(self, picture: np.ndarray) -> np.ndarray:
        """Return an action (A,) in [-1, 1] for a picture (height, width, 3) uint8, and remember it."""
        if picture.shape[:2] != (SIDE, SIDE):
            picture = shrunk(picture)
        seen = places(self.importance(picture.astype(np.float32) / 255))
        bias_hidden, bias_input, weight_hidden, weight_input, bias, weight = self._parts[4:]
        gates = weight_input @ seen + bias_input + weight_hidden @ self._hidden + bias_hidden
        enter, forget, new, leave = np.split(gates, 4)
        self._cell = sigmoid(forget) * self._cell + sigmoid(enter) * np.tanh(new)
        self._hidden = sigmoid(leave) * np.tanh(self._cell)
        action: np.ndarray = np.tanh(weight @ self._hidden + bias)
        return action


def shrunk(picture: np.ndarray) -> np.ndarray:
    """Return a picture in 96 x 96, by PIL's bilinear filter: torch has the same, up to a rounding (1 of 255), in less time."""
    batch = torch.from_numpy(np.ascontiguousarray(picture)[None]).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(batch, (SIDE, SIDE), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).numpy()


def patches(image: np.ndarray) -> np.ndarray:
    """Return the patches (529, 147) of an image (96, 96, 3), row by row, each flattened row, column, channel."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (PATCH, PATCH), (0, 1))[::STRIDE, ::STRIDE]
    return np.ascontiguousarray(windows.transpose(0, 1, 3, 4, 2)).reshape(ACROSS * ACROSS, -1)


def places(importance: np.ndarray) -> np.ndarray:
    """Return the centres (row, column) of the ten most important patches in [0, 1], (20,), the most important one first."""
    best = np.argsort(-importance, kind="stable")[:BEST]
    centres = np.stack([best // ACROSS, best % ACROSS], 1) * STRIDE + PATCH // 2
    return centres.astype(np.float32).ravel() / SIDE


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x))."""
    result: np.ndarray = 1 / (1 + np.exp(-x))
    return result
