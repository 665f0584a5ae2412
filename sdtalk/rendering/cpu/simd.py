"""SIMD operations for the kernels: vector code the compiler does not find by itself.

They work on blocks of BLOCK float32 at a position of a one-dimensional array. LLVM turns a block into two
AVX-512 registers or into more, smaller ones (AVX2, NEON). Nothing checks the bounds.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from sdtalk.rendering.cpu.kernel import vector_operation
from sdtalk.rendering.rules import MIN_ALPHA, MIN_TRANSMITTANCE

BLOCK = 32
"""Features worked on at once; rows are padded to a multiple of this."""

NARROW_BLOCK = 8
"""The same for a forward pass of few features, of which three in four would be padding."""

RUN = 16
"""Pixels of a row weighed at once."""

LOWEST_POWER = -20.0
"""Smaller powers of 2 than this count as this one: far below any alpha that shows."""

EXP2 = [
    float(np.float32(c))
    for c in np.polynomial.chebyshev.Chebyshev.interpolate(np.exp2, 5, [-1, 0])
    .convert(kind=np.polynomial.Polynomial, domain=[-1, 1])
    .coef
]
"""2^x for x in [-1, 0] as a polynomial, relative error 2e-7; the library's is not vectorised."""

_VECTOR = ir.VectorType(ir.FloatType(), BLOCK)
_NARROW_VECTOR = ir.VectorType(ir.FloatType(), NARROW_BLOCK)
_FAST = ("reassoc", "contract", "nsz")


def _block_pointer(builder: ir.IRBuilder, array: ir.Value, start: ir.Value, block: ir.Value) -> ir.Value:
    """Pointer to the block-th vector after `start` of a float32 array."""
    index = builder.add(start, builder.mul(block, ir.Constant(block.type, BLOCK)))
    return builder.bitcast(builder.gep(array, [index]), _VECTOR.as_pointer())


def _data(context, builder: ir.IRBuilder, array_type: types.Array, array: ir.Value) -> ir.Value:
    return context.make_array(array_type)(context, builder, array).data


def _broadcast(builder: ir.IRBuilder, value: ir.Value, count: int) -> ir.Value:
    undefined = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
    )


def _is_vector_input(*arrays: types.Type) -> bool:
    return all(isinstance(a, types.Array) and a.dtype == types.float32 and a.ndim == 1 for a in arrays)


@vector_operation
def add_scaled(typingctx, target, target_start, source, source_start, weight, blocks) -> tuple | None:  # type: ignore[no-untyped-def]
    """target[target_start + i] += weight * source[source_start + i] for i < blocks * BLOCK."""
    if not _is_vector_input(target, source):
        return None
    signature = types.void(target, types.uint64, source, types.uint64, types.float32, types.uint64)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        to, origin = _data(context, builder, target, args[0]), _data(context, builder, source, args[2])
        factor = _broadcast(builder, args[4], BLOCK)
        with cgutils.for_range(builder, args[5]) as loop:
            pointer = _block_pointer(builder, to, args[1], loop.index)
            row = builder.load(_block_pointer(builder, origin, args[3], loop.index), align=4)
            product = builder.fmul(factor, row, flags=_FAST)
            builder.store(
                builder.fadd(builder.load(pointer, align=4), product, flags=_FAST), pointer, align=4
            )
        return context.get_dummy_value()

    return signature, generate


@vector_operation
def add_scaled_narrow(typingctx, target, target_start, source, source_start, weight) -> tuple | None:  # type: ignore[no-untyped-def]
    """target[target_start + i] += weight * source[source_start + i] for i < NARROW_BLOCK."""
    if not _is_vector_input(target, source):
        return None
    signature = types.void(target, types.uint64, source, types.uint64, types.float32)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        to, origin = _data(context, builder, target, args[0]), _data(context, builder, source, args[2])
        pointer, row = (
            builder.bitcast(builder.gep(array, [start]), _NARROW_VECTOR.as_pointer())
            for array, start in ((to, args[1]), (origin, args[3]))
        )
        factor = _broadcast(builder, args[4], NARROW_BLOCK)
        product = builder.fmul(factor, builder.load(row, align=4), flags=_FAST)
        builder.store(builder.fadd(builder.load(pointer, align=4), product, flags=_FAST), pointer, align=4)
        return context.get_dummy_value()

    return signature, generate


@vector_operation
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


@vector_operation
def sum_rows(typingctx, target, target_start, source, weights, listed, count, blocks):  # type: ignore[no-untyped-def]
    """target[target_start + i] = sum over rows r in listed[:count] of weights[r] * source[r, i], i < blocks * BLOCK."""
    if not _is_vector_input(target, source, weights):
        return None
    u64 = types.uint64
    signature = types.void(target, u64, source, weights, listed, u64, u64)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        to, rows, factors, list_ = (
            _data(context, builder, array, value)
            for array, value in ((target, args[0]), (source, args[2]), (weights, args[3]), (listed, args[4]))
        )
        total = cgutils.alloca_once(builder, _VECTOR)
        zero = ir.Constant(_VECTOR, [0.0] * BLOCK)
        row_length = builder.mul(args[6], ir.Constant(args[6].type, BLOCK))
        with cgutils.for_range(builder, args[6]) as over_blocks:
            builder.store(zero, total)
            with cgutils.for_range(builder, args[5]) as over_rows:
                row = builder.zext(builder.load(builder.gep(list_, [over_rows.index])), args[5].type)
                factor = _broadcast(builder, builder.load(builder.gep(factors, [row])), BLOCK)
                pointer = _block_pointer(builder, rows, builder.mul(row, row_length), over_blocks.index)
                product = builder.fmul(factor, builder.load(pointer, align=4), flags=_FAST)
                builder.store(builder.fadd(builder.load(total), product, flags=_FAST), total)
            builder.store(
                builder.load(total), _block_pointer(builder, to, args[1], over_blocks.index), align=4
            )
        return context.get_dummy_value()

    return signature, generate


@vector_operation
def weigh_run(
    typingctx, transmittance, alphas, weights, start, start_dx, lane_end, power, slope, curve, max_alpha
):  # type: ignore[no-untyped-def]
    """Blend one splat into RUN pixels of a row: its alpha, its weight, and what is left of the transmittance.

    Args:
        typingctx: Numba's.
        transmittance: Of the tile's pixels, negative where a pixel has stopped.
        alphas: Out.
        weights: Out; 0 where the splat does not count.
        start: The first pixel.
        start_dx: Its x from the splat's centre.
        lane_end: The last of the pixels that the splat's box still contains, from the first one.
        power: log2 of alpha at dx = 0.
        slope: log2 of alpha falls by dx * (slope + curve * dx).
        curve: See slope.
        max_alpha: `RasterRules.max_alpha`.
    """
    if not _is_vector_input(transmittance, alphas, weights):
        return None
    f32 = types.float32
    signature = types.void(
        transmittance, alphas, weights, types.uint64, f32, types.int32, f32, f32, f32, f32
    )

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        floats, whole = ir.VectorType(ir.FloatType(), RUN), ir.VectorType(ir.IntType(32), RUN)
        arrays = (transmittance, alphas, weights)
        left, alpha_out, weight_out = (
            builder.bitcast(builder.gep(_data(context, builder, k, a), [args[3]]), floats.as_pointer())
            for k, a in zip(arrays, args, strict=False)
        )
        first_dx, last, at_centre, falls, bends, most = (_broadcast(builder, a, RUN) for a in args[4:])
        lanes = ir.Constant(whole, list(range(RUN)))

        def constant(value: float) -> ir.Constant:
            return ir.Constant(floats, [float(np.float32(value))] * RUN)

        def least(a: ir.Value, b: ir.Value) -> ir.Value:
            return builder.select(builder.fcmp_ordered("<", a, b), a, b)

        def multiply_add(a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
            return builder.fadd(builder.fmul(a, b, flags=_FAST), c, flags=_FAST)

        dx = builder.fadd(first_dx, builder.sitofp(lanes, floats), flags=_FAST)
        fall = builder.fmul(dx, multiply_add(bends, dx, falls), flags=_FAST)
        exponent = builder.fsub(at_centre, fall, flags=_FAST)
        lowest = constant(LOWEST_POWER)
        exponent = builder.select(builder.fcmp_ordered(">", exponent, lowest), exponent, lowest)
        exponent = least(exponent, constant(0.0))  # above 0 only where alpha is clamped
        integer = builder.fptosi(exponent, whole)
        part = builder.fsub(exponent, builder.sitofp(integer, floats), flags=_FAST)
        value = constant(EXP2[-1])
        for coefficient in EXP2[-2::-1]:
            value = multiply_add(part, value, constant(coefficient))
        biased = builder.add(integer, ir.Constant(whole, [127] * RUN))
        scale = builder.bitcast(builder.shl(biased, ir.Constant(whole, [23] * RUN)), floats)
        alpha = least(builder.fmul(value, scale, flags=_FAST), most)
        before = builder.load(left, align=4)
        # before - weight would round on a larger scale
        after = builder.fmul(before, builder.fsub(constant(1.0), alpha, flags=_FAST), flags=_FAST)
        seen = builder.fcmp_ordered(">=", alpha, constant(MIN_ALPHA))
        seen = builder.and_(seen, builder.icmp_signed("<=", lanes, last))
        blended = builder.and_(seen, builder.fcmp_ordered(">=", after, constant(MIN_TRANSMITTANCE)))
        sign = ir.Constant(whole, [-(2**31)] * RUN)
        stopped = builder.bitcast(builder.or_(builder.bitcast(before, whole), sign), floats)
        rest = builder.select(blended, after, builder.select(seen, stopped, before))
        weight = builder.select(blended, builder.fmul(alpha, before, flags=_FAST), constant(0.0))
        builder.store(rest, left, align=4)
        builder.store(alpha, alpha_out, align=4)
        builder.store(weight, weight_out, align=4)
        return context.get_dummy_value()

    return signature, generate


@vector_operation
def list_positive(typingctx, values, start, listed, count) -> tuple | None:  # type: ignore[no-untyped-def]
    """Append the indices in start:start + RUN of positive values to the int32 array `listed`; return its new count.

    Writes up to RUN elements past the new end.
    """
    if not _is_vector_input(values):
        return None
    signature = types.uint64(values, types.uint64, listed, types.uint64)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        i32, floats = ir.IntType(32), ir.VectorType(ir.FloatType(), RUN)
        whole, mask_type = ir.VectorType(i32, RUN), ir.VectorType(ir.IntType(1), RUN)
        start = builder.gep(_data(context, builder, values, args[0]), [args[1]])
        source = builder.bitcast(start, floats.as_pointer())
        mask = builder.fcmp_ordered(">", builder.load(source, align=4), ir.Constant(floats, [0.0] * RUN))
        first = _broadcast(builder, builder.trunc(args[1], i32), RUN)
        indices = builder.add(first, ir.Constant(whole, list(range(RUN))))
        kind = ir.FunctionType(whole, [whole, mask_type, whole])
        name = f"llvm.experimental.vector.compress.v{RUN}i32"
        compress = cgutils.get_or_insert_function(builder.module, kind, name)
        packed = builder.call(compress, [indices, mask, ir.Constant(whole, ir.Undefined)])
        target = builder.gep(_data(context, builder, listed, args[2]), [args[3]])
        builder.store(packed, builder.bitcast(target, whole.as_pointer()), align=4)
        found = builder.ctpop(builder.bitcast(mask, ir.IntType(RUN)))
        return builder.add(args[3], builder.zext(found, ir.IntType(64)))

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
        pointer = builder.gep(_data(context, builder, array, args[0]), [args[1]])
        # read, keep in all cache levels, data
        builder.call(function, [builder.bitcast(pointer, byte), i32(0), i32(3), i32(1)])
        return context.get_dummy_value()

    return types.void(array, types.uint64), generate


@vector_operation
def mix_pixels(typingctx, photo, rows, columns, down, across, pixel) -> tuple | None:  # type: ignore[no-untyped-def]
    """pixel[c] = sum over j < 4, i < 4 of down[j] * across[i] * photo[rows[j] + columns[i] + c], c < 4.

    For the bicubic sampling of a flat photo with four channels; rows and columns are int64.
    """
    if not _is_vector_input(photo, down, across, pixel):
        return None
    signature = types.void(photo, rows, columns, down, across, pixel)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kinds = (photo, rows, columns, down, across, pixel)
        source, *lists, out = (_data(context, builder, k, a) for k, a in zip(kinds, args, strict=True))
        four = ir.VectorType(ir.FloatType(), 4)
        row, column, low, right = (
            [builder.load(builder.gep(values, [ir.IntType(32)(k)])) for k in range(4)] for values in lists
        )
        total = ir.Constant(four, [0.0] * 4)
        right = [_broadcast(builder, weight, 4) for weight in right]
        for j in range(4):
            line = ir.Constant(four, [0.0] * 4)
            for i in range(4):
                place = builder.gep(source, [builder.add(row[j], column[i])])
                neighbour = builder.load(builder.bitcast(place, four.as_pointer()), align=4)
                line = builder.fadd(line, builder.fmul(right[i], neighbour, flags=_FAST), flags=_FAST)
            total = builder.fadd(total, builder.fmul(_broadcast(builder, low[j], 4), line, flags=_FAST), flags=_FAST)
        builder.store(total, builder.bitcast(out, four.as_pointer()), align=4)
        return context.get_dummy_value()

    return signature, generate
