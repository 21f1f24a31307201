"""A program for a GPU, read: which kernels it runs, what they multiply and what they move."""

from types import SimpleNamespace

import pytest

from hpjax.compiled.hlo import parse
from hpjax.compiled.kernels import LAUNCH, read_step, summarize

# The form of `compiled.as_text()`; a step is the loop's body, whose number of rounds isn't known.
STEP = """\
HloModule jit_step

%part (p0: f32[8,16], p1: s32[]) -> f32[1,16] {
  %p0 = f32[8,16]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %row = f32[1,16]{1,0} dynamic-slice(%p0, %p1, %zero), dynamic_slice_sizes={1,16}
  ROOT %twice = f32[1,16]{1,0} add(%row, %row)
}

%moved (q0: f32[4,16]) -> f32[16,4] {
  %q0 = f32[4,16]{1,0} parameter(0)
  ROOT %t = f32[16,4]{1,0} transpose(%q0), dimensions={1,0}
}

%product (a: bf16[4,16], b: bf16[16,2]) -> f32[4,2] {
  %a = bf16[4,16]{1,0} parameter(0)
  %b = bf16[16,2]{1,0} parameter(1)
  ROOT %d = f32[4,2]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%inner (i: (f32[4,16])) -> (f32[4,16]) {
  %i = (f32[4,16]{1,0}) parameter(0)
  %v = f32[4,16]{1,0} get-tuple-element(%i), index=0
  %c = f32[4,16]{1,0} copy(%v)
  ROOT %o = (f32[4,16]{1,0}) tuple(%c)
}

%body (s: (f32[8,16], s32[], bf16[2,8,8,6], bf16[4,3,3,3])) -> (f32[8,16]) {
  %s = (f32[8,16]{1,0}, s32[], bf16[2,8,8,6]{3,2,1,0}, bf16[4,3,3,3]{3,2,1,0}) parameter(0)
  %big = f32[8,16]{1,0} get-tuple-element(%s), index=0
  %n = s32[] get-tuple-element(%s), index=1
  %x = bf16[2,8,8,6]{3,2,1,0} get-tuple-element(%s), index=2
  %w = bf16[4,3,3,3]{3,2,1,0} get-tuple-element(%s), index=3
  %m = f32[4,16]{1,0} get-tuple-element(%s), index=4
  %l = bf16[4,16]{1,0} get-tuple-element(%s), index=5
  %r = bf16[16,2]{1,0} get-tuple-element(%s), index=6
  %fp = f32[1,16]{1,0} fusion(%big, %n), kind=kLoop, calls=%part
  %fm = f32[16,4]{1,0} fusion(%m), kind=kInput, calls=%moved
  %fd = f32[4,2]{1,0} fusion(%l, %r), kind=kCustom, calls=%product
  %y = (bf16[2,8,8,4]{3,2,1,0}, u8[0]{0}) custom-call(%x, %w), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_o01i->b01f, feature_group_count=2, custom_call_target="__cudnn$convForward"
  %y0 = bf16[2,8,8,4]{3,2,1,0} get-tuple-element(%y), index=0
  %g = (bf16[4,3,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%x, %y0), window={size=3x3 pad=1_1x1_1}, \
dim_labels=b01f_o01i->b01f, feature_group_count=2, custom_call_target="__cudnn$convBackwardFilter"
  %init = (f32[4,16]{1,0}) tuple(%m)
  %loop = (f32[4,16]{1,0}) while(%init), condition=%never, body=%inner, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %out = (f32[8,16]{1,0}) tuple(%big)
}

ENTRY %main (p: f32[8,16]) -> f32[8,16] {
  %p = f32[8,16]{1,0} parameter(0)
  %before = f32[8,16]{1,0} copy(%p)
  %t0 = (f32[8,16]{1,0}) tuple(%before)
  %steps = (f32[8,16]{1,0}) while(%t0), condition=%never, body=%body
  ROOT %end = f32[8,16]{1,0} get-tuple-element(%steps), index=0
}
"""
GPU = SimpleNamespace(bytes_per_second=1e12, flops=lambda dtype: 1e12)


@pytest.fixture
def kernels():
    return {kernel.name: kernel for kernel in read_step(STEP)}


def test_a_step_is_the_loops_body(kernels):
    assert list(kernels) == ["fp", "fm", "fd", "y", "g", "c"]
    assert kernels["c"].times == 3
    assert parse(STEP).entry.name == "main"


def test_bytes_are_those_of_the_parts_that_are_read(kernels):
    assert kernels["fp"].bytes == 4 + 64 + 64  # the index, a row of eight, and the result
    assert kernels["fm"].bytes == 2 * 256 and kernels["fm"].moves and not kernels["fp"].moves
    assert kernels["y"].bytes == 2 * (2 * 8 * 8 * 6 + 4 * 27 + 2 * 8 * 8 * 4)


def test_arithmetic_is_that_of_the_groups(kernels):
    forward = 2 * (2 * 8 * 8 * 4) * (3 * 3 * 3)
    assert kernels["y"].flops == kernels["g"].flops == forward
    assert (kernels["y"].groups, kernels["y"].window) == (2, (3, 3))
    assert (kernels["fd"].flops, kernels["fd"].dtype) == (2 * 4 * 2 * 16, "bf16")


def test_the_summary_adds_up(kernels):
    found = summarize(list(kernels.values()), GPU, lanes=2)
    assert found["kernels"] == 8
    assert found["gb_moved_only"] == pytest.approx((512 + 3 * 512) / 1e9)
    assert found["lane_step_us_with_launches"] == pytest.approx(1e6 * 8 * LAUNCH / 2)
    assert found["calls"]["__cudnn$convForward"] == {"calls": 1, "__cudnn$convForward groups=2 window=3x3": 1}
