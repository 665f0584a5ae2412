"""Vector code for runs of pixels: the weights of a splat at RUN pixels of a row, and the list of those it reaches."""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

from sdtalk.rendering.cpu.kernel import vector_operation
from sdtalk.rendering.cpu.simd import FAST, array_data, broadcast, is_vector_input
from sdtalk.rendering.rules import MIN_ALPHA, MIN_TRANSMITTANCE

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
    if not is_vector_input(transmittance, alphas, weights):
        return None
    f32 = types.float32
    signature = types.void(transmittance, alphas, weights, types.uint64, f32, types.int32, f32, f32, f32, f32)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        floats, whole = ir.VectorType(ir.FloatType(), RUN), ir.VectorType(ir.IntType(32), RUN)
        arrays = (transmittance, alphas, weights)
        left, alpha_out, weight_out = (
            builder.bitcast(builder.gep(array_data(context, builder, k, a), [args[3]]), floats.as_pointer())
            for k, a in zip(arrays, args, strict=False)
        )
        first_dx, last, at_centre, falls, bends, most = (broadcast(builder, a, RUN) for a in args[4:])
        lanes = ir.Constant(whole, list(range(RUN)))

        def constant(value: float) -> ir.Constant:
            return ir.Constant(floats, [float(np.float32(value))] * RUN)

        def least(a: ir.Value, b: ir.Value) -> ir.Value:
            return builder.select(builder.fcmp_ordered("<", a, b), a, b)

        def multiply_add(a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
            return builder.fadd(builder.fmul(a, b, flags=FAST), c, flags=FAST)

        dx = builder.fadd(first_dx, builder.sitofp(lanes, floats), flags=FAST)
        fall = builder.fmul(dx, multiply_add(bends, dx, falls), flags=FAST)
        exponent = builder.fsub(at_centre, fall, flags=FAST)
        lowest = constant(LOWEST_POWER)
        exponent = builder.select(builder.fcmp_ordered(">", exponent, lowest), exponent, lowest)
        exponent = least(exponent, constant(0.0))  # above 0 only where alpha is clamped
        integer = builder.fptosi(exponent, whole)
        part = builder.fsub(exponent, builder.sitofp(integer, floats), flags=FAST)
        value = constant(EXP2[-1])
        for coefficient in EXP2[-2::-1]:
            value = multiply_add(part, value, constant(coefficient))
        biased = builder.add(integer, ir.Constant(whole, [127] * RUN))
        scale = builder.bitcast(builder.shl(biased, ir.Constant(whole, [23] * RUN)), floats)
        alpha = least(builder.fmul(value, scale, flags=FAST), most)
        before = builder.load(left, align=4)
        # before - weight would round on a larger scale
        after = builder.fmul(before, builder.fsub(constant(1.0), alpha, flags=FAST), flags=FAST)
        seen = builder.fcmp_ordered(">=", alpha, constant(MIN_ALPHA))
        seen = builder.and_(seen, builder.icmp_signed("<=", lanes, last))
        blended = builder.and_(seen, builder.fcmp_ordered(">=", after, constant(MIN_TRANSMITTANCE)))
        sign = ir.Constant(whole, [-(2**31)] * RUN)
        stopped = builder.bitcast(builder.or_(builder.bitcast(before, whole), sign), floats)
        rest = builder.select(blended, after, builder.select(seen, stopped, before))
        weight = builder.select(blended, builder.fmul(alpha, before, flags=FAST), constant(0.0))
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
    if not is_vector_input(values):
        return None
    signature = types.uint64(values, types.uint64, listed, types.uint64)

    def generate(context, builder, sig, args):  # type: ignore[no-untyped-def]
        i32, floats = ir.IntType(32), ir.VectorType(ir.FloatType(), RUN)
        whole, mask_type = ir.VectorType(i32, RUN), ir.VectorType(ir.IntType(1), RUN)
        start = builder.gep(array_data(context, builder, values, args[0]), [args[1]])
        source = builder.bitcast(start, floats.as_pointer())
        mask = builder.fcmp_ordered(">", builder.load(source, align=4), ir.Constant(floats, [0.0] * RUN))
        first = broadcast(builder, builder.trunc(args[1], i32), RUN)
        indices = builder.add(first, ir.Constant(whole, list(range(RUN))))
        kind = ir.FunctionType(whole, [whole, mask_type, whole])
        name = f"llvm.experimental.vector.compress.v{RUN}i32"
        compress = cgutils.get_or_insert_function(builder.module, kind, name)
        packed = builder.call(compress, [indices, mask, ir.Constant(whole, ir.Undefined)])
        target = builder.gep(array_data(context, builder, listed, args[2]), [args[3]])
        builder.store(packed, builder.bitcast(target, whole.as_pointer()), align=4)
        found = builder.ctpop(builder.bitcast(mask, ir.IntType(RUN)))
        return builder.add(args[3], builder.zext(found, ir.IntType(64)))

    return signature, generate
