"""Influence of training examples on test examples, from Gram matrices of their gradients.

The influence of training example i on test example j is -<H^-1 g_j, g_i>: negative is helpful (training on i lowers the loss at
j). H^-1 by gradient match (identity), DataInf (Kwon et al. 2024), LiSSA (Agarwal et al. 2017; Koh & Liang 2017) and the exact
inverse (`memtax.attribution.influence_exact`) stays in the span of the gradients, so the inner products train x train (K) and
train x test (C) of each tensor suffice. RepSim compares last hidden states instead: larger is more similar.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from memtax.attribution.influence_exact import exact, exact_damping
from memtax.errors import MemtaxError, ModelError, RowError

METHODS = ("gradient_match", "datainf", "lissa", "exact", "repsim")
CURVED = frozenset({"datainf", "lissa", "exact"})
"""Methods that use the training Gram matrix."""
ITERATIONS = 10
"""Default of LiSSA."""

Matrix = npt.NDArray[np.float64]


def gradient_match(cross: Matrix) -> Matrix:
    """-<g_j, g_i>.

    Args:
        cross: (train, test), inner products of the gradients of one tensor.

    Returns:
        (train, test); negative is helpful.
    """
    return -cross


def damping(gram: Matrix, size: int) -> float:
    """DataInf's lambda = trace(K) / (10 n D) of a tensor of D numbers, for n training examples."""
    return float(np.trace(gram)) / (10 * len(gram) * size) if len(gram) else 0.0


def datainf(gram: Matrix, cross: Matrix, size: int, weight: float | None = None) -> Matrix:
    """-<H^-1 g_j, g_i> with H^-1 v = (1 / (n lambda)) sum_k (v - <g_k, v> g_k / (lambda + <g_k, g_k>)).

    Args:
        gram: (train, train), inner products of the training gradients of one tensor.
        cross: (train, test), their inner products with the test gradients.
        size: number of elements in the tensor.
        weight: lambda; None takes `damping`.

    Returns:
        (train, test); negative is helpful. 0 where no training example has a gradient.
    """
    n, weight = len(gram), damping(gram, size) if weight is None else weight
    if weight == 0:
        return np.zeros_like(cross)
    shares = cross / (weight + gram.diagonal())[:, None]
    found: Matrix = -(n * cross - gram @ shares) / (n * weight)
    return found


def lissa(
    gram: Matrix,
    cross: Matrix,
    size: int,
    *,
    iterations: int = ITERATIONS,
    alpha: float = 1.0,
    scale: float | None = None,
    weight: float | None = None,
) -> Matrix:
    """-<(alpha / s) r, g_i> after iterations of r <- v + r - (alpha / s) H r from r = v = g_j.

    H = (1/n) sum_k g_k g_k^T + lambda I. r is always a multiple of v plus a combination of training gradients, so only the
    coefficients are iterated.

    Args:
        gram: (train, train), inner products of the training gradients of one tensor.
        cross: (train, test), their inner products with the test gradients.
        size: number of elements in the tensor.
        iterations: number of iterations.
        alpha: step size.
        scale: s; None takes alpha ||H||, with which every step reduces the error.
        weight: lambda; None takes DataInf's, `damping`.

    Returns:
        (train, test); negative is helpful. 0 where no training example has a gradient.

    Raises:
        MemtaxError: the iteration would diverge: s < alpha ||H|| / 2.
    """
    n, weight = len(gram), damping(gram, size) if weight is None else weight
    if weight == 0:
        return np.zeros_like(cross)
    norm = _largest_eigenvalue(gram) / n + weight
    step = 1 / norm if scale is None else alpha / scale if scale else 0.0
    # At exactly half, the largest direction oscillates without growing; rounding must not cause an error there.
    if iterations < 1 or not step > 0 or step * norm > 2 * (1 + 1e-9):
        raise MemtaxError(
            f"LiSSA does not converge with alpha={alpha}, scale={scale} and {iterations} iterations: the scale must be at "
            f"least {alpha * norm / 2:.3g} (half of alpha times the norm of H), and there must be an iteration"
        )
    own, others = 1.0, np.zeros_like(cross)
    for _ in range(iterations):
        # H r = (1/n) sum_k g_k <g_k, r> + lambda r, with <g_k, r> = own C + K others.
        along = own * cross + gram @ others
        own, others = 1 + own * (1 - step * weight), others * (1 - step * weight) - step / n * along
    found: Matrix = -step * (own * cross + gram @ others)
    return found


def _exact(gram: Matrix, cross: Matrix, size: int, weight: float | None) -> Matrix:
    """Influence with the exact inverse; 0 where no training example has a gradient, as for the other methods."""
    if not gram.any():
        return np.zeros_like(cross)
    return exact(gram, cross, exact_damping(gram, damping(gram, size)) if weight is None else weight)


def _largest_eigenvalue(gram: Matrix) -> float:
    if len(gram) <= 500:
        return float(np.linalg.eigvalsh(gram)[-1])
    from scipy.sparse.linalg import eigsh

    # A fixed start vector, so that the same matrix gives the same bits.
    return float(eigsh(gram, k=1, v0=np.ones(len(gram)), return_eigenvectors=False)[0])


def repsim(train: Matrix, test: Matrix) -> Matrix:
    """Cosine of hidden states (examples, width): (train, test); larger is more similar. NaN where a state is NaN."""

    def unit(states: Matrix) -> Matrix:
        norms = np.linalg.norm(states, axis=1, keepdims=True)
        return states / np.where(norms == 0, 1, norms)

    return np.clip(unit(train) @ unit(test).T, -1, 1)


@dataclass(frozen=True)
class Influence:
    """Influence by one method.

    Attributes:
        method: one of `METHODS`.
        values: (train, test), over all tensors; NaN if either example has no gradient (or no hidden state).
        tensors: name to (train, test); empty for RepSim.
    """

    method: str
    values: Matrix
    tensors: Mapping[str, Matrix]

    @property
    def strength(self) -> Matrix:
        """Larger is more influential: minus the influence (helpful first), or the cosine for RepSim."""
        return self.values if self.method == "repsim" else -self.values

    def top(self, k: int) -> npt.NDArray[np.int64]:
        """The most influential training examples of each test example, (test, at most k); ties in their given order."""
        order = np.argsort(-np.nan_to_num(self.strength, nan=-np.inf), axis=0, kind="stable")
        return order[:k].T

    def _known(self) -> list[bool]:
        """Mask of test examples that have an influence."""
        return [bool(column.any()) for column in np.isfinite(self.values).T]

    def class_accuracy(self, train: Sequence[Any], test: Sequence[Any]) -> list[bool | None]:
        """For each test example, whether its most influential training example has its class; None without an influence."""
        first = self.top(1)[:, 0]
        known = self._known()
        return [bool(train[row] == label) if ok else None for row, label, ok in zip(first, test, known, strict=True)]

    def coverage(self, train: Sequence[Any], test: Sequence[Any]) -> list[float | None]:
        """For each test example, the share of its top k with its class, where k is the number of training examples with it."""
        found: list[float | None] = []
        order, known = self.top(len(self.values)), self._known()
        for column, label in enumerate(test):
            k = sum(other == label for other in train)
            hits = [train[row] == label for row in order[column, :k]]
            found.append(float(np.mean(hits)) if k and known[column] else None)
        return found


def influence(
    model: Any,
    train: Sequence[Sequence[int]],
    test: Sequence[Sequence[int]],
    *,
    methods: Sequence[str] = METHODS,
    parameters: str | None = None,
    train_scored: Sequence[Sequence[bool]] | None = None,
    test_scored: Sequence[Sequence[bool]] | None = None,
) -> dict[str, Influence]:
    """Influence of every training example on every test example.

    Args:
        model: a `transformers` causal language model, or a PEFT model around one.
        train: token ids of each training example.
        test: token ids of each test example.
        methods: some of `METHODS`.
        parameters: one of `memtax.lm.gradients.PARAMETERS`; None takes the LoRA adapters if there are any, else embeddings and
            head.
        train_scored: mask of each training example's tokens that the loss is computed on; None: all.
        test_scored: the same for test examples.

    Returns:
        Method to its influences.

    Raises:
        MemtaxError: a method is unknown, or there are no examples.
        ModelError: an example is invalid for the model, or the parameters are missing.
    """
    from memtax.lm.gradients import capture

    check_methods(methods)
    parameters = parameters or default_parameters(model)
    cross, gram, sizes = {}, {}, {}
    has = np.array([len(one) > 0 for one in train]), np.array([len(one) > 0 for one in test])
    if set(methods) - {"repsim"}:
        ours = capture(model, train, parameters=parameters, scored=train_scored)
        theirs = capture(model, test, parameters=parameters, scored=test_scored)
        cross, sizes = ours.gram(theirs), dict(ours.sizes)
        gram = ours.gram() if set(methods) & CURVED else {}
        has = np.array(ours.targets) > 0, np.array(theirs.targets) > 0
    states = (last_states(model, train), last_states(model, test)) if "repsim" in methods else None
    return from_products(methods, gram, cross, sizes, has, states)


def from_products(
    methods: Sequence[str],
    gram: Mapping[str, Matrix],
    cross: Mapping[str, Matrix],
    sizes: Mapping[str, int],
    has: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    states: tuple[Matrix, Matrix] | None = None,
    *,
    iterations: int = ITERATIONS,
    scale: float | None = None,
    weight: float | None = None,
) -> dict[str, Influence]:
    """Influence from given inner products.

    Args:
        methods: some of `METHODS`.
        gram: name of each tensor to (train, train); may be empty without methods of `CURVED`.
        cross: name to (train, test).
        sizes: name to number of elements in the tensor.
        has: masks of train and test examples that have a gradient; the others are excluded, also from means.
        states: last hidden states, for RepSim.
        iterations: number of LiSSA iterations.
        scale: scale of LiSSA.
        weight: lambda of DataInf, LiSSA and the exact inverse, for every tensor; None takes each method's own.

    Raises:
        MemtaxError: LiSSA does not converge, or lambda is not above 0 or too small for the exact inverse.
        ModelError: an inner product is not finite.
    """
    if not all(np.isfinite(matrix).all() for matrix in (*gram.values(), *cross.values())):
        raise ModelError("the gradients' inner products are not finite; check the weights, or try dtype float32")
    found = {}
    rows, columns = (np.flatnonzero(one) for one in has)
    for method in methods:
        if method == "repsim":
            assert states is not None
            found[method] = Influence(method, repsim(*states), {})
            continue
        tensors = {}
        for name, whole in cross.items():
            inner = whole[np.ix_(rows, columns)]
            if method == "gradient_match":
                value = gradient_match(inner)
            else:
                square = gram[name][np.ix_(rows, rows)]
                if method == "datainf":
                    value = datainf(square, inner, sizes[name], weight)
                elif method == "lissa":
                    value = lissa(square, inner, sizes[name], iterations=iterations, scale=scale, weight=weight)
                else:
                    value = _exact(square, inner, sizes[name], weight)
            tensors[name] = np.full(whole.shape, np.nan)
            tensors[name][np.ix_(rows, columns)] = value
        found[method] = Influence(method, np.sum(list(tensors.values()), axis=0), tensors)
    return found


def last_states(model: Any, sequences: Sequence[Sequence[int]]) -> Matrix:
    """The last hidden state at the last token of each sequence.

    Args:
        model: a causal language model; its BOS is put before every sequence.
        sequences: token ids of each sequence.

    Returns:
        (sequences, width); NaN for a sequence without tokens.

    Raises:
        RowError: a hidden state is NaN.
    """
    from memtax.lm.gradients import BATCH_TOKENS, rectangle, rows_that_fit
    from memtax.lm.head import call, decompose
    from memtax.lm.memory import fitting, smaller
    from memtax.lm.scores import evaluation, to_ragged
    from memtax.lm.special_tokens import bos_of

    ragged, found = to_ragged(sequences, bos_of(model)), None
    most = fitting(model, "states", BATCH_TOKENS["cpu" if model.device.type == "cpu" else "accelerator"])
    left = np.argsort(-ragged.lengths, kind="stable")
    with evaluation(model), torch.inference_mode():
        parts = decompose(model)
        while len(left):
            rows = left[: rows_that_fit(ragged.lengths[left], most)]
            # Padding is on the right, where it does not affect earlier tokens.
            ids = torch.from_numpy(rectangle(ragged, rows, "right")[0]).to(model.device)
            try:
                if parts is None:
                    output = call(model, input_ids=ids, use_cache=False, output_hidden_states=True)
                    states = output.hidden_states[-1][:, -ids.shape[1] :]
                else:
                    states = call(parts.backbone, input_ids=ids, use_cache=False)[0]
            except (RuntimeError, MemoryError) as error:
                most = smaller(model, "states", error, (len(rows), ids.shape[1]))
                continue
            left = left[len(rows) :]
            lengths = ragged.lengths[rows]
            last = states[torch.arange(len(rows)), torch.from_numpy(lengths - 1).clamp(min=0)].cpu().double().numpy()
            if found is None:
                found = np.full((len(sequences), last.shape[1]), np.nan)
            has = lengths > ragged.before[rows]
            if (bad := np.isnan(last).any(axis=1) & has).any():
                row = int(rows[np.argmax(bad)])
                raise RowError("the hidden state at {row} is not a number (NaN); check the weights, or try dtype float32", row)
            found[rows] = np.where(has[:, None], last, np.nan)
    return np.zeros((0, 0)) if found is None else found


def delta(model: Any) -> dict[str, float]:
    """How far LoRA adapters have moved the weights: ||scaling * B A||_F over the adapted layers.

    Returns:
        `mean`, `std` (population standard deviation over layers) and `layers`.

    Raises:
        MemtaxError: the model has no LoRA layer of linear maps.
    """
    norms = []
    for module in model.modules():
        for name in getattr(module, "lora_A", {}):
            first, second = (factors[name].weight.cpu().double() for factors in (module.lora_A, module.lora_B))
            # ||B A||^2 = trace((B^T B) (A A^T)), with matrices of the size of the rank.
            square = ((second.T @ second) * (first @ first.T)).sum().item()
            norms.append(abs(module.scaling[name]) * max(square, 0.0) ** 0.5)
    if not norms:
        raise MemtaxError(f"the model has no LoRA adapter; it is a {type(model).__name__}")
    return {"mean": float(np.mean(norms)), "std": float(np.std(norms)), "layers": len(norms)}


def default_parameters(model: Any) -> str:
    """`lora` if the model has LoRA adapters, otherwise `embeddings+head`."""
    has = any(".lora_A." in name or ".lora_B." in name for name, _ in model.named_parameters())
    return "lora" if has else "embeddings+head"


def check_methods(methods: Sequence[str]) -> None:
    """Check the names of methods.

    Raises:
        MemtaxError: a method is unknown, or there are no methods.
    """
    for method in methods:
        if method not in METHODS:
            raise MemtaxError(f"unknown influence method {method!r}; choose some of {', '.join(METHODS)}")
    if not methods:
        raise MemtaxError(f"no influence method; choose some of {', '.join(METHODS)}")
