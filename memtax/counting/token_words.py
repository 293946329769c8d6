"""Building blocks of the compiled loops: reading tokens eight bytes at a time, hashing them, and prefetching memory."""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 divided by the golden ratio, a factor that spreads the bits of a product."""

_ZERO = np.uint64(0)
_FOLD = np.uint64(32)


@intrinsic
def prefetch(typingctx: Any, array: Any, index: Any) -> Any:
    """Prefetch the cache line of `array[index]` (for a matrix, of the row) without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, arguments[0])
        step = cgutils.unpack_tuple(builder, made.strides)[0]
        address = builder.add(builder.ptrtoint(made.data, step.type), builder.mul(step, arguments[1]))
        byte = ir.IntType(8).as_pointer()
        pointer = builder.inttoptr(address, byte)
        kind = ir.FunctionType(ir.VoidType(), [byte] + [ir.IntType(32)] * 3)
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        builder.call(function, [pointer, *(ir.IntType(32)(value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@intrinsic
def load_word(typingctx: Any, array: Any, index: Any) -> Any:
    """Eight bytes starting at `array[index]`, as one number: four uint16 or two int32 tokens, at any alignment."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(64).as_pointer())
        return builder.load(pointer, align=1)

    return types.uint64(array, types.int64), generate


@intrinsic
def tokens_a_word(typingctx: Any, array: Any) -> Any:
    """Tokens per eight bytes, a compile-time constant so that loops over words have a constant step."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(64), 64 // signature.args[0].dtype.bitwidth)

    return types.int64(array), generate


@intrinsic
def ones(typingctx: Any, value: Any) -> Any:
    """Number of set bits."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@intrinsic
def trailing_zeros(typingctx: Any, value: Any) -> Any:
    """Number of zero bits below the lowest set bit; 64 if no bit is set."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@numba.njit(nogil=True, inline="always")
def mix(h: np.uint64) -> np.uint64:
    """Spread a hash over all bits."""
    h = (h ^ (h >> _FOLD)) * SPREAD
    return h ^ (h >> _FOLD)


@numba.njit(nogil=True, inline="always")
def whole_hash(tokens: npt.NDArray[Any], first: int, width: int, multiplier: np.uint64) -> np.uint64:
    """Hash of `tokens[first:first + width]`, word by word and then token by token.

    Eight words form a round whose products depend on few others.
    """
    in_word = tokens_a_word(tokens)
    words = width // in_word
    second = multiplier * multiplier
    fourth = second * second
    h = _ZERO
    for j in range(first, first + words // 8 * 8 * in_word, 8 * in_word):
        a = load_word(tokens, np.int64(j)) * multiplier + load_word(tokens, np.int64(j + in_word))
        b = load_word(tokens, np.int64(j + 2 * in_word)) * multiplier + load_word(tokens, np.int64(j + 3 * in_word))
        c = load_word(tokens, np.int64(j + 4 * in_word)) * multiplier + load_word(tokens, np.int64(j + 5 * in_word))
        d = load_word(tokens, np.int64(j + 6 * in_word)) * multiplier + load_word(tokens, np.int64(j + 7 * in_word))
        h = h * (fourth * fourth) + ((a * second + b) * fourth + (c * second + d))
    for j in range(words // 8 * 8, words):
        h = h * multiplier + load_word(tokens, np.int64(first + j * in_word))
    for j in range(words * in_word, width):
        h = h * multiplier + np.uint64(tokens[first + j])
    return h


@numba.njit(nogil=True, inline="always")
def equal_text(left: npt.NDArray[Any], at: int, right: npt.NDArray[Any], start: int, width: int) -> bool:
    """Whether `left[at:at + width]` equals `right[start:start + width]`, compared by words and then by tokens."""
    in_word = tokens_a_word(left)
    words = width // in_word
    different = _ZERO
    for j in range(0, words * in_word, in_word):
        different |= load_word(left, np.int64(at + j)) ^ load_word(right, np.int64(start + j))
    for j in range(words * in_word, width):
        different |= np.uint64(left[at + j] != right[start + j])
    return different == _ZERO
