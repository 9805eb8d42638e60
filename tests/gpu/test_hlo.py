"""Kernels, bytes and launches read off the text of compiled programs."""

from __future__ import annotations

import pytest

from mexjax.gpu import bounds, hlo, kernels, thunks
from mexjax.gpu.targets import GPUS

TEXT = """\
HloModule jit_step, is_scheduled=true

%fused (p0: f32[4,8], p1: f32[1000,8]) -> f32[4,8] {
  %p0 = f32[4,8]{1,0} parameter(0)
  %p1 = f32[1000,8]{1,0} parameter(1)
  %slice.1 = f32[4,8]{1,0} slice(%p1), slice={[0:4], [0:8]}
  ROOT %add.1 = f32[4,8]{1,0} add(%p0, %slice.1)
}

%in_place (p0: f32[1000,8], p1: f32[4,8], i: s32[]) -> f32[1000,8] {
  %p0 = f32[1000,8]{1,0} parameter(0)
  %p1 = f32[4,8]{1,0} parameter(1)
  %i = s32[] parameter(2)
  ROOT %update = f32[1000,8]{1,0} dynamic-update-slice(%p0, %p1, %i, %i)
}

%body (state: (s32[], f32[2,16,16,8], f32[3,3,8,4])) -> (s32[], f32[2,16,16,8], f32[3,3,8,4]) {
  %state = (s32[], f32[2,16,16,8]{3,2,1,0}, f32[3,3,8,4]{3,2,1,0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %x = f32[2,16,16,8]{3,2,1,0} get-tuple-element(%state), index=1
  %w = f32[3,3,8,4]{3,2,1,0} get-tuple-element(%state), index=2
  %conv.1 = (f32[2,16,16,4]{3,2,1,0}, u8[5000]{0}) custom-call(%x, %w), \
window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f, feature_group_count=1, \
custom_call_target="__cudnn$convForward", metadata={op_name="jit(step)/while/body/conv"}
  ROOT %out = (s32[], f32[2,16,16,8]{3,2,1,0}, f32[3,3,8,4]{3,2,1,0}) tuple(%count, %x, %w)
}

%condition (state: (s32[], f32[2,16,16,8], f32[3,3,8,4])) -> pred[] {
  %state = (s32[], f32[2,16,16,8]{3,2,1,0}, f32[3,3,8,4]{3,2,1,0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%count, %limit), direction=LT
}

ENTRY %main (a: f32[4,8], b: f32[1000,8], c: bf16[16,32], d: bf16[32,64]) -> f32[4,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %b = f32[1000,8]{1,0} parameter(1)
  %c = bf16[16,32]{1,0} parameter(2)
  %d = bf16[32,64]{1,0} parameter(3)
  %zero = s32[] constant(0)
  %fusion.1 = f32[4,8]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused
  %fusion.2 = f32[1000,8]{1,0} fusion(%b, %a, %zero), kind=kLoop, calls=%in_place
  %gemm = (bf16[16,64]{1,0}, s8[4096]{0}) custom-call(%c, %d), \
custom_call_target="__cublas$lt$matmul", \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  %start = (s32[], f32[2,16,16,8]{3,2,1,0}, f32[3,3,8,4]{3,2,1,0}) tuple(%zero, %a, %b)
  %while.1 = (s32[], f32[2,16,16,8]{3,2,1,0}, f32[3,3,8,4]{3,2,1,0}) while(%start), \
condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %copy.1 = f32[4,8]{1,0} copy(%fusion.1)
}
"""


@pytest.fixture(scope="module")
def contents() -> kernels.Contents:
    return kernels.contents(hlo.parse(TEXT))


def by_name(contents: kernels.Contents) -> dict[str, kernels.Kernel]:
    return {kernel.name: kernel for kernel in contents.kernels}


def test_a_fusion_reads_what_it_slices_and_writes_what_it_updates(contents):
    found = by_name(contents)
    assert found["fusion.1"].num_bytes == 3 * 4 * 8 * 4  # both rows of 4, and the result
    assert found["fusion.2"].num_bytes == 2 * 4 * 8 * 4  # the update is read and written


def test_a_convolution_in_a_loop_counts_once_a_turn(contents):
    convolution = by_name(contents)["conv.1"]
    assert (convolution.kind, convolution.label) == ("convolution", "Forward")
    assert (convolution.trips, convolution.depth) == (5, 1)
    assert convolution.flops == 2 * (2 * 16 * 16 * 4) * (3 * 3 * 8)
    # The workspace of 5000 bytes is not counted.
    assert convolution.num_bytes == 4 * (2 * 16 * 16 * 8 + 3 * 3 * 8 * 4 + 2 * 16 * 16 * 4)
    assert contents.loops == [kernels.Loop(depth=0, trips=5, num_convolutions=1)]


def test_a_product_has_a_type_and_operations(contents):
    product = by_name(contents)["gemm"]
    assert (product.kind, product.dtype) == ("product", "bf16")
    assert product.flops == 2 * 16 * 64 * 32


def test_exchanges_callbacks_and_wide_numbers_are_named():
    text = TEXT.replace(
        "  ROOT %copy.1",
        "  %all = f32[4,8]{1,0} all-reduce(%a), to_apply=%fused\n"
        '  %call = f64[] custom-call(), custom_call_target="xla_ffi_python_gpu_callback"\n'
        "  ROOT %copy.1",
    )
    found = kernels.contents(hlo.parse(text))
    assert found.collectives == ["all-reduce"]
    assert found.callbacks == ["xla_ffi_python_gpu_callback"]
    assert found.num_wide == 1


def test_bounds_are_of_one_step_and_have_a_floor_for_each_kernel(contents):
    gpu = GPUS["h200"]
    step = bounds.step_kernels(contents, 5)
    assert sum(kernel.trips for kernel in step) == 2  # the convolution and the comparison
    found = bounds.bounds(step, gpu)
    convolution = by_name(contents)["conv.1"]
    assert found.convolutions == {"Forward": 1} and found.dtypes == {"f32": 1}
    assert found.convolution_gflop == convolution.flops / 1e9
    assert found.graph_ms == pytest.approx(2 * 2e-3) and found.launch_ms == pytest.approx(2 * 5e-3)
    expected = max(convolution.flops / 495e12, convolution.num_bytes / 4.8e12)
    assert bounds.seconds(convolution, gpu) == pytest.approx(expected)
    assert bounds.seconds(convolution, gpu, is_exact=True) >= expected
    assert len(bounds.step_kernels(contents, 1)) == len(contents.kernels)


def test_a_loop_of_unknown_length_is_read_as_one_step():
    text = TEXT.replace(', backend_config={"known_trip_count":{"n":"5"}}', "")
    found = kernels.contents(hlo.parse(text))
    assert found.loops[0].trips is None
    names = {kernel.name for kernel in bounds.step_kernels(found, 5)}
    assert names == {"conv.1", "less"} and len(found.kernels) > 2


def test_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule empty\n")


THUNKS = """\
001: kCopy         [source | next=002] kCopy
002: kWhile        [prev=001 | sink]
condition:
    003: kCustomKernel [source | sink] compare
  body:
    000: kCommandBuffer [source | next=007]
        004: kCustomKernel [source | sink] one
        005: kCustomKernel [source | sink] two
    007: kConvolution  [prev=000 | next=008] kConvolution
    008: kCustomKernel [prev=007 | sink] three
"""


def test_the_host_launches_graphs_and_what_is_between():
    parsed = thunks.parse(THUNKS)
    assert [thunk.kind for thunk in parsed] == ["kCopy", "kWhile"]
    assert thunks.host_launches(parsed, has_loop=True) == (3, 1)
    assert thunks.host_launches(parsed, has_loop=False) == (2, 0)


def test_a_loop_within_a_graph_is_launched_once_an_epoch():
    text = "000: kCommandBuffer [source | sink]\n" + "".join(
        f"    {line}\n" for line in THUNKS.splitlines()
    )
    assert thunks.host_launches(thunks.parse(text), has_loop=True) == (0, 0)
