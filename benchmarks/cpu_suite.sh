#!/usr/bin/env bash
# Every CPU benchmark in about 12 minutes on two cores; JSON under $1, else results/<CPU>.
#
#   benchmarks/cpu_suite.sh DIR              everything, most important first, until BUDGET seconds are spent
#   ROWS="scaling startup" benchmarks/cpu_suite.sh DIR     only these rows
#   SUITE=smoke benchmarks/cpu_suite.sh DIR      tiny, to see that it runs
#
# Each shape is timed twice: hpjax's layouts against PyTorch, and what hpjax chooses against the slower peers.
set -u
cpu=$(sed -n 's/^model name\s*: //p' /proc/cpuinfo 2>/dev/null | head -n 1 | tr -c 'A-Za-z0-9\n' '_')
FOLDER=${1:-$(dirname "$0")/results/${cpu:-cpu}_$(nproc)_cores}
BUDGET=${BUDGET:-780}
export JAX_PLATFORMS=cpu
source "$(dirname "$0")/suite.sh"

cnn=(--model=custom_cnn --image_size=150 --batch_size=32 --lanes=8)
small=(--model=custom_cnn --image_size=48 --batch_size=10 --lanes=16)
resnet=(--model=resnet18 --image_size=64 --batch_size=32 --lanes=4)
ours=fused,sequential,threads,auto,auto_out_of_step,torch,torch_plain
peers=auto,vmap,torch_func,torch_compile,processes

row custom_cnn_150_b32_x8 epoch_time.py "${cnn[@]}" --steps=1 --repeats=5 --systems=$ours
row custom_cnn_48_b10_x16 epoch_time.py "${small[@]}" --steps=40 --repeats=5 --systems=$ours
row resnet18_64_b32_x4 epoch_time.py "${resnet[@]}" --steps=1 --repeats=5 --systems=$ours
row custom_cnn_48_b10_x16_peers epoch_time.py "${small[@]}" --steps=5 --repeats=3 --systems=$peers
row startup startup.py --repeats=3
row custom_cnn_150_b32_x8_peers epoch_time.py "${cnn[@]}" --steps=1 --repeats=2 --systems=$peers
row resnet18_64_b32_x4_peers epoch_time.py "${resnet[@]}" --steps=1 --repeats=2 --systems=$peers
row scaling scaling.py --model=custom_cnn --image_size=48 --batch_size=10 --lanes=1,2,4,8,16,32,64 --repeats=5
# On request only (it takes as long as all of the others): ROWS=allocators BUDGET=3000.
if [[ " ${ROWS:-} " == *" allocators "* ]]; then row allocators allocators.py "${cnn[@]}"; fi
finish
