"""SIMD operations for the kernels: vector code the compiler does not find by itself.

They work on blocks of BLOCK float32 at a position of a one-dimensional array. LLVM turns a block into two
AVX-512 registers or into more, smaller ones (AVX2, NEON). Nothing checks the bounds.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from sdtalk.rendering.cpu.kernel import vector_operation

BLOCK = 32
"""Features worked on at once; rows are padded to a multiple of this."""

NARROW_BLOCK = 8
"""The same for a forward pass of few features, of which three in four would be padding."""

_VECTOR = ir.VectorType(ir.FloatType(), BLOCK)
FAST = ("reassoc", "contract", "nsz")


def _block_pointer(
    builder: ir.IRBuilder, array: ir.Value, start: ir.Value, block: ir.Value, vector: ir.VectorType = _VECTOR
) -> ir.Value:
    """Pointer to the block-th vector after `start` of a float32 array."""
    index = builder.add(start, builder.mul(block, ir.Constant(block.type, vector.count)))
    return builder.bitcast(builder.gep(array, [index]), vector.as_pointer())


def array_data(context, builder: ir.IRBuilder, array_type: types.Array, array: ir.Value) -> ir.Value:
    """Pointer to an array's first element."""
    return context.make_array(array_type)(context, builder, array).data


def broadcast(builder: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    """A vector of equal values."""
    undefined = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    )


def is_vector_input(*arrays: types.Type) -> bool:
    """Whether all are one-dimensional arrays of float32."""
    return all(isinstance(a, types.Array) and a.dtype == types.float32 and a.ndim == 1 for a in arrays)


def _scaled_addition(width: int) -> Callable[..., Any]:
    """Of target[target_start + i] += weight * source[source_start + i] for i < blocks * width."""
    vector = ir.VectorType(ir.FloatType(), width)

    def add(typingctx, target, target_start, source, source_start, weight, blocks) -> tuple | None:  # type: ignore[no-untyped-def]
        if not is_vector_input(target, source):
            return None
        signature = types.void(target, types.uint64, source, types.uint64, types.float32, types.uint64)

        def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
            to = array_data(context, builder, target, args[0])
            origin = array_data(context, builder, source, args[2])
            factor = broadcast(builder, args[4], width)
            with cgutils.for_range(builder, args[5]) as loop:
                pointer = _block_pointer(builder, to, args[1], loop.index, vector)
                row = builder.load(_block_pointer(builder, origin, args[3], loop.index, vector), align=4)
                product = builder.fmul(factor, row, flags=FAST)
                total = builder.fadd(builder.load(pointer, align=4), product, flags=FAST)
                builder.store(total, pointer, align=4)
            return context.get_dummy_value()

        return signature, generate

    return vector_operation(add)


add_scaled, add_scaled_narrow = _scaled_addition(BLOCK), _scaled_addition(NARROW_BLOCK)


@vector_operation
def dot(typingctx, left, left_start, right, right_start, blocks) -> tuple | None:  # type: ignore[no-untyped-def]
    """Sum of left[left_start + i] * right[right_start + i] over i < blocks * BLOCK."""
    if not is_vector_input(left, right):
        return None
    signature = types.float32(left, types.uint64, right, types.uint64, types.uint64)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        a, b = array_data(context, builder, left, args[0]), array_data(context, builder, right, args[2])
        total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * BLOCK))
        builder.store(ir.Constant(_VECTOR, [0.0] * BLOCK), total)
        with cgutils.for_range(builder, args[4]) as loop:
            row_a = builder.load(_block_pointer(builder, a, args[1], loop.index), align=4)
            row_b = builder.load(_block_pointer(builder, b, args[3], loop.index), align=4)
            product = builder.fmul(row_a, row_b, flags=FAST)
            builder.store(builder.fadd(builder.load(total), product, flags=FAST), total)
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), _VECTOR])
        reduce = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.fadd.v{BLOCK}f32")
        return builder.call(reduce, [ir.Constant(ir.FloatType(), 0.0), builder.load(total)], fastmath=FAST)

    return signature, generate


@vector_operation
def sum_rows(typingctx, target, target_start, source, weights, listed, count, blocks):  # type: ignore[no-untyped-def]
    """target[target_start + i] = sum over rows r in listed[:count] of weights[r] * source[r, i], i < blocks * BLOCK."""
    if not is_vector_input(target, source, weights):
        return None
    u64 = types.uint64
    signature = types.void(target, u64, source, weights, listed, u64, u64)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        to, rows, factors, list_ = (
            array_data(context, builder, array, value)
            for array, value in ((target, args[0]), (source, args[2]), (weights, args[3]), (listed, args[4]))
        )
        total = cgutils.alloca_once(builder, _VECTOR)
        zero = ir.Constant(_VECTOR, [0.0] * BLOCK)
        row_length = builder.mul(args[6], ir.Constant(args[6].type, BLOCK))
        with cgutils.for_range(builder, args[6]) as over_blocks:
            builder.store(zero, total)
            with cgutils.for_range(builder, args[5]) as over_rows:
                row = builder.zext(builder.load(builder.gep(list_, [over_rows.index])), args[5].type)
                factor = broadcast(builder, builder.load(builder.gep(factors, [row])), BLOCK)
                pointer = _block_pointer(builder, rows, builder.mul(row, row_length), over_blocks.index)
                product = builder.fmul(factor, builder.load(pointer, align=4), flags=FAST)
                builder.store(builder.fadd(builder.load(total), product, flags=FAST), total)
            builder.store(
                builder.load(total), _block_pointer(builder, to, args[1], over_blocks.index), align=4
            )
        return context.get_dummy_value()

    return signature, generate


@vector_operation
def prefetch(typingctx, array, index) -> tuple | None:  # type: ignore[no-untyped-def]
    """Ask for the cache line of array[index], one-dimensional, ahead of its use."""
    if not isinstance(array, types.Array) or array.ndim != 1:
        return None

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        i32, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        pointer = builder.gep(array_data(context, builder, array, args[0]), [args[1]])
        # read, keep in all cache levels, data
        builder.call(function, [builder.bitcast(pointer, byte), i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


@vector_operation
def mix_pixels(typingctx, photo, rows, columns, down, across, pixel) -> tuple | None:  # type: ignore[no-untyped-def]
    """pixel[c] = sum over j < 4, i < 4 of down[j] * across[i] * photo[rows[j] + columns[i] + c], c < 4.

    For the bicubic sampling of a flat photo with four channels; rows and columns are int64.
    """
    if not is_vector_input(photo, down, across, pixel):
        return None
    signature = types.void(photo, rows, columns, down, across, pixel)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kinds = (photo, rows, columns, down, across, pixel)
        source, *lists, out = (array_data(context, builder, k, a) for k, a in zip(kinds, args, strict=True))
        four = ir.VectorType(ir.FloatType(), 4)
        row, column, low, right = (
            [builder.load(builder.gep(values, [ir.IntType(32)(k)])) for k in range(4)] for values in lists
        )
        total = ir.Constant(four, [0.0] * 4)
        right = [broadcast(builder, weight, 4) for weight in right]
        for j in range(4):
            line = ir.Constant(four, [0.0] * 4)
            for i in range(4):
                place = builder.gep(source, [builder.add(row[j], column[i])])
                neighbour = builder.load(builder.bitcast(place, four.as_pointer()), align=4)
                line = builder.fadd(line, builder.fmul(right[i], neighbour, flags=FAST), flags=FAST)
            total = builder.fadd(
                total, builder.fmul(broadcast(builder, low[j], 4), line, flags=FAST), flags=FAST
            )
        builder.store(total, builder.bitcast(out, four.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate
