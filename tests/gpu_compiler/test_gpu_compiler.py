"""What XLA's compiler for CUDA makes of the GPU's rules: a GPU isn't needed, and nothing is timed."""

import linear_network
import pytest
from gpu_compilations import Case, compile_conv, compile_for_several, compile_workload, plan_for
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.gpu_compiler
# A case takes a second or two.
SOME = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # shrinking a failure would take minutes
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SLACK = 1.02  # of arithmetic
PADDED = 1.1  # where products are filled up to multiples of 8
WIDE = 2.1  # of few channels: all rows of the kernel meet each row of the image, those beyond its edge too


WIDTHS = st.sampled_from([1, 2, 3, 5, 7])


@st.composite
def cases(draw):
    widths = draw(st.one_of(st.tuples(WIDTHS, WIDTHS), WIDTHS.map(lambda w: (w, w))))
    stride, spread = draw(st.sampled_from([(1, (1, 1)), (2, (1, 1)), (3, (1, 1)), (1, (2, 1)), (1, (2, 2))]))
    least = [(width - 1) * gap + 1 + stride for width, gap in zip(widths, spread, strict=True)]
    sizes = (draw(st.integers(least[0], 40)), draw(st.integers(least[1], 40)))
    channels = st.sampled_from([3, 8, 10, 16, 20, 64])
    return Case(
        draw(st.sampled_from([2, 3, 8])),
        draw(st.sampled_from([2, 10, 32])),
        sizes,
        widths,
        draw(channels),
        draw(channels),
        (stride, stride),
        draw(st.sampled_from(["SAME", "VALID"])),
        draw(st.sampled_from(["float32", "bfloat16"])),
        draw(st.booleans()),
        spread,
        draw(st.sampled_from(["h200", "h100", "a100"])),
    )


def check(case, found):
    whole = case.channels % 8 == 0 == case.features % 8
    narrow = max(case.channels, case.features) < 64
    slack = WIDE if narrow else SLACK if whole else PADDED
    assert found["gflop"] <= slack * found["own_gflop"], found
    # XLA takes a map for the window where it is no larger than the kernel along an axis: as much arithmetic.
    if all(size > width for size, width in zip(found["map"], case.widths, strict=True)):
        for window in found["windows"]:
            assert all(size <= width for size, width in zip(window, case.widths, strict=True)), found


@SOME
@given(case=cases())
def test_convolutions_multiply_what_they_need(compile_elsewhere, case):
    check(case, compile_elsewhere(compile_conv, case))


# A kernel one pixel wide, rows of three channels on an A100: XLA found no tiles for their products.
TALL = Case(2, 8, (37, 53), (3, 1), 10, 16, (1, 1), "SAME", "float32", False)
SHORT_ROWS = Case(8, 7, (37, 53), (3, 3), 3, 16, (1, 1), "SAME", "float32", True, gpu="a100")
SPREAD = Case(2, 7, (37, 53), (3, 3), 64, 64, (1, 1), "SAME", "bfloat16", False, dilation=(2, 2))


@pytest.mark.parametrize(
    "case",
    [TALL, TALL._replace(strides=(2, 2), dtype="bfloat16"), SHORT_ROWS, SPREAD, SPREAD._replace(lanes=1)],
)
def test_what_xla_has_refused_or_spread(compile_elsewhere, case):
    check(case, compile_elsewhere(compile_conv, case))


@pytest.mark.landing
@settings(SOME, max_examples=50)
@given(case=cases())
@example(case=Case(8, 10, (8, 23), (7, 7), 16, 20, (1, 1), "VALID", "bfloat16", False))
def test_more_convolutions_multiply_what_they_need(compile_elsewhere, case):
    check(case, compile_elsewhere(compile_conv, case))


PLAIN = Case(8, 32, (19, 19), (3, 3), 64, 64, (1, 1), "SAME", "bfloat16", False)
STRIDED = Case(8, 32, (38, 38), (3, 3), 64, 128, (2, 2), "SAME", "bfloat16", False)


@pytest.mark.parametrize("case", [PLAIN, STRIDED])
def test_kernels_do_not_grow_with_lanes(compile_elsewhere, case):
    few, many = (compile_elsewhere(compile_conv, case._replace(lanes=lanes)) for lanes in (4, 8))
    assert many["kernels"] <= few["kernels"] + 2  # a cast more, as XLA likes


def test_where_cudnn_computes_lanes_at_once_they_are_its_groups(compile_elsewhere):
    found = compile_elsewhere(compile_conv, PLAIN)
    backward = {n: k for n, k in found["calls"]["__cudnn$convBackwardFilter"].items() if n != "calls"}
    assert list(backward.values()) == [1] and "groups=8" in next(iter(backward))


def test_where_cudnn_computes_lane_by_lane_products_do(compile_elsewhere):
    """Strided: no convolution is left, and the input gradient multiplies no zeros between pixels."""
    found = compile_elsewhere(compile_conv, STRIDED)
    assert not found["windows"] and found["gflop"] <= SLACK * found["own_gflop"]


def test_a_small_networks_step(compile_elsewhere):
    """All lanes' products in one call each, in few kernels."""
    step = compile_elsewhere(compile_workload, "custom_cnn", 48, 10, 8, "float32")
    assert step["kernels"] <= 110
    assert step["gflop"] <= WIDE * 2.12 and step["gb"] <= 0.6
    assert step["gb_moved_only"] <= 0.1 * step["gb"] and not step["copies"]
    assert sum(row["calls"] for target, row in step["calls"].items() if "conv" in target) <= 1


def test_in_evaluation_convolutions_write_their_results_normalised(compile_elsewhere):
    found = compile_elsewhere(compile_workload, "resnet18", 64, 32, 4, "bfloat16", "evaluate")
    fused = sum(row["calls"] for target, row in found["calls"].items() if "convBiasActivation" in target)
    # Of 16 that cuDNN computes for all lanes at once; the others are products, and the first one is pooled.
    assert fused >= 8


def test_a_plan_for_a_gpu_says_what_fits(compile_elsewhere):
    images, weights = 90 * 16 * 16 * 3, (3 * 6 + 6) * 4
    rows, text = compile_elsewhere(plan_for, linear_network.__file__)
    assert [row[0] for row in rows] == [1, 8, 9] and all(row[2] for row in rows)
    one, eight, nine = (row[1] for row in rows)
    assert images + 4 * weights < one < eight < nine < 10 * images  # weights, two moments, the best so far
    assert "NVIDIA H200, not timed" in text and "lane-step" in text
    (row,), text = compile_elsewhere(plan_for, linear_network.__file__, 2 * one, 5)
    assert row[0] == 5 and row[2] == (row[1] <= 2 * one * 0.75 * 0.85) is False and " no " in text


def test_lanes_out_of_step_need_more(compile_elsewhere):
    """Each has a batch of its own."""
    (together,), (apart,) = (
        compile_elsewhere(plan_for, linear_network.__file__, 0, 8, seeds)[0] for seeds in (1, 2)
    )
    assert apart[1] >= together[1] and apart[3] > 1.5 * together[3]


@pytest.mark.parametrize("gpu", ["a100", "h100"])
def test_a_network_for_every_gpu(compile_elsewhere, gpu):
    step = compile_elsewhere(compile_workload, "custom_cnn", 48, 10, 8, "float32", "train", gpu)
    assert step["kernels"] <= 110 and step["gflop"] <= WIDE * 2.12


def test_gpus_of_a_mesh_exchange_nothing(compile_elsewhere):
    """Each runs what one alone would."""
    text, (one, several) = compile_elsewhere(compile_for_several, 4)
    assert "num_partitions=4" in text and several == one
    exchanges = ("all-gather", "all-reduce", "all-to-all", "collective-", "reduce-scatter", "send(", "recv(")
    assert not [name for name in exchanges if name in text]


@pytest.mark.landing
def test_lanes_of_a_large_network_cost_no_more_than_one(compile_elsewhere):
    together, alone = (
        compile_elsewhere(compile_workload, "resnet18", 150, 32, lanes, "bfloat16") for lanes in (8, 1)
    )
    assert together["lane_step_us"] <= 555
    # Windows are copied where cuDNN would take the lanes one by one.
    assert together["gb"] / 8 <= 1.25 * alone["gb"]
    assert together["gflop"] <= SLACK * 8 * alone["gflop"]
    assert together["gb_moved_only"] <= 0.09 * together["gb"]
    # Weights and moments stay where they are, in the layout that they have.
    assert not together["copies"] and not alone["copies"]
    assert max(max(window) for window in together["windows"]) <= 7
