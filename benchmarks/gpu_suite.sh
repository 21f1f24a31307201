#!/usr/bin/env bash
# Every GPU benchmark on one GPU in under 9 minutes; JSON under $1, else $OUT, else results/<GPU>.
#
#   benchmarks/gpu_suite.sh DIR              everything, most important first, until BUDGET seconds are spent
#   ROWS="resnet18_b32_x8" benchmarks/gpu_suite.sh DIR     only these rows
#   SUITE=smoke JAX_PLATFORMS=cpu benchmarks/gpu_suite.sh DIR     tiny, anywhere, to see that it runs
set -u
gpu=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr -c 'A-Za-z0-9\n' '_')
FOLDER=${1:-${OUT:-$(dirname "$0")/results/${gpu:-none}}}
BUDGET=${BUDGET:-530}
source "$(dirname "$0")/suite.sh"

# One program is compiled by several systems; none of what is reported is compile time, but for `scaling`.
cache=$(mktemp -d)
trap 'rm -rf "$cache"' EXIT
export JAX_COMPILATION_CACHE_DIR=$cache JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 HPJAX_CACHE=$cache/hpjax
resnet=(--model=resnet18 --image_size=150 --batch_size=32 --precision=bfloat16 --timeout=200)
cnn=(--model=custom_cnn --image_size=150 --timeout=150)

row resnet18_b32_x8 epoch_time.py "${resnet[@]}" --lanes=8 --steps=20 --repeats=5 \
  --systems=fused,sequential,auto,torch,processes --processes=2,4,8
row custom_cnn_b10_x32 epoch_time.py "${cnn[@]}" --batch_size=10 --lanes=32 --steps=50 --repeats=5 \
  --systems=fused,sequential,auto,torch,processes --processes=4
row custom_cnn_b450_x8 epoch_time.py "${cnn[@]}" --batch_size=450 --lanes=8 --steps=5 --repeats=5 \
  --systems=fused,sequential,torch
row resnet18_b32_x16 epoch_time.py "${resnet[@]}" --lanes=16 --steps=20 --repeats=3 --systems=fused,sequential,torch
row resnet18_b32_x32 epoch_time.py "${resnet[@]}" --lanes=32 --steps=20 --repeats=3 --systems=fused,sequential,torch
row conv_lowerings conv_lowerings.py --model=resnet18 --image_size=150 --batch_size=32 --precision=bfloat16 \
  --lanes=8 --repeats=5 --layers=conv1,layer1,layer2,layer3,layer4
JAX_ENABLE_COMPILATION_CACHE=0 row scaling scaling.py --model=custom_cnn --image_size=150 --batch_size=10 \
  --lanes=1,2,4,8,16,32,64 --repeats=5 --steps_per_call=8

# tests NAME ARGUMENT…: runs tests on the GPU, as long as time is left.
tests() {
  local name=$1
  shift
  if ((BUDGET - SECONDS < 20)); then return; fi
  echo "== tests of $name ($SECONDS s)"
  # Exit status 5: none of them can run here.
  (cd "$HERE/.." && JAX_DISABLE_MOST_OPTIMIZATIONS=0 timeout $((BUDGET - SECONDS)) "$PYTHON" -m pytest -p no:cacheprovider "$@" \
    >"$FOLDER/tests_$name.log" 2>&1) || [[ $? == 5 ]] || FAILED="${FAILED:-} $name"
  tail -n 3 "$FOLDER/tests_$name.log"
}
has() { "$PYTHON" -c "import $1" 2>/dev/null; }
platforms=${JAX_PLATFORMS:-}
if has pytest && [[ -z ${ROWS:-} ]]; then
  export JAX_PLATFORMS=${JAX_PLATFORMS:-cuda}  # or the tests choose the CPU
  tests gpu -m gpu tests/lanes/test_gpu.py
  # They compare with float64, so products must have all bits of float32.
  if has hypothesis; then
    JAX_DEFAULT_MATMUL_PRECISION=highest tests ops tests/ops/test_conv.py tests/ops/test_pool.py \
      tests/ops/test_norm_pool.py
  fi
fi
export JAX_PLATFORMS=$platforms
row resnet18_b32_x8_peers epoch_time.py "${resnet[@]}" --lanes=8 --steps=5 --repeats=2 \
  --systems=auto,vmap,torch_compile,torch_func
finish
