"""Two vector operations that the compiler does not find by itself, because it cannot know that arrays do not overlap.

Both work on blocks of BLOCK float32 at a position of a one-dimensional array. LLVM turns a block into one AVX-512
register or into two or four smaller ones (AVX2, NEON). Nothing checks the bounds.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

BLOCK = 16
"""Floats in a vector; rows of features are padded to a multiple of this."""

_VECTOR = ir.VectorType(ir.FloatType(), BLOCK)
_FAST = ("reassoc", "contract", "nsz")


def _block_pointer(builder: ir.IRBuilder, array: ir.Value, start: ir.Value, block: ir.Value) -> ir.Value:
    """Pointer to the block-th vector after `start` of a float32 array."""
    index = builder.add(start, builder.mul(block, ir.Constant(block.type, BLOCK)))
    return builder.bitcast(builder.gep(array, [index]), _VECTOR.as_pointer())


def _data(context, builder: ir.IRBuilder, array_type: types.Array, array: ir.Value) -> ir.Value:
    return context.make_array(array_type)(context, builder, array).data


def _is_vector_input(*arrays: types.Type) -> bool:
    return all(isinstance(a, types.Array) and a.dtype == types.float32 and a.ndim == 1 for a in arrays)


@intrinsic
def add_scaled(typingctx, target, target_start, source, source_start, weight, blocks) -> tuple | None:  # type: ignore[no-untyped-def]
    """target[target_start + i] += weight * source[source_start + i] for i < blocks * BLOCK."""
    if not _is_vector_input(target, source):
        return None
    signature = types.void(target, types.uint64, source, types.uint64, types.float32, types.uint64)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        to, origin = _data(context, builder, target, args[0]), _data(context, builder, source, args[2])
        lane = builder.insert_element(
            ir.Constant(_VECTOR, ir.Undefined), args[4], ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), BLOCK), None)
        factor = builder.shuffle_vector(lane, ir.Constant(_VECTOR, ir.Undefined), zeros)
        with cgutils.for_range(builder, args[5]) as loop:
            pointer = _block_pointer(builder, to, args[1], loop.index)
            row = builder.load(_block_pointer(builder, origin, args[3], loop.index), align=4)
            product = builder.fmul(factor, row, flags=_FAST)
            builder.store(
                builder.fadd(builder.load(pointer, align=4), product, flags=_FAST), pointer, align=4
            )
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def dot(typingctx, left, left_start, right, right_start, blocks) -> tuple | None:  # type: ignore[no-untyped-def]
    """Sum of left[left_start + i] * right[right_start + i] over i < blocks * BLOCK."""
    if not _is_vector_input(left, right):
        return None
    signature = types.float32(left, types.uint64, right, types.uint64, types.uint64)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        a, b = _data(context, builder, left, args[0]), _data(context, builder, right, args[2])
        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * BLOCK))
        builder.store(ir.Constant(_VECTOR, [0.0] * BLOCK), total)
        with cgutils.for_range(builder, args[4]) as loop:
            row_a = builder.load(_block_pointer(builder, a, args[1], loop.index), align=4)
            row_b = builder.load(_block_pointer(builder, b, args[3], loop.index), align=4)
            product = builder.fmul(row_a, row_b, flags=_FAST)
            builder.store(builder.fadd(builder.load(total), product, flags=_FAST), total)
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _VECTOR])
        reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{BLOCK}f32")
        return builder.call(reduce, [ir.Constant(ir.FloatType(), 0.0), builder.load(total)], fastmath=_FAST)

    return signature, generate
