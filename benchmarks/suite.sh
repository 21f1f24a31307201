# What both suites share; sourced by them. Expects FOLDER (of the results), BUDGET (seconds) and SUITE.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python3}
export PYTHONPATH="$HERE/..${PYTHONPATH:+:$PYTHONPATH}"
# The allocator that is installed with hpjax, whatever else this machine has.
export HPJAX_ALLOCATOR=${HPJAX_ALLOCATOR:-mimalloc}
mkdir -p "$FOLDER"
SECONDS=0

# row NAME SCRIPT FLAG…: runs a benchmark into FOLDER/NAME.json, if ROWS asks for it and time is left.
# SUITE=smoke makes everything tiny: it shows that all of it runs, and times nothing.
row() {
  local name=$1 script=$2
  shift 2
  if [[ -n ${ROWS:-} && " $ROWS " != *" $name "* ]]; then return; fi
  local left=$((BUDGET - SECONDS))
  if ((left < 20)); then
    echo "== $name: skipped, no time left"
    return
  fi
  local tiny=()
  if [[ ${SUITE:-full} == smoke ]]; then
    case $script in
      epoch_time.py) tiny=(--image_size=40 --batch_size=4 --lanes=2 --repeats=1 --steps=1
        "--systems=${SMOKE_SYSTEMS:-fused,sequential}" --processes=2) ;;
      conv_lowerings.py) tiny=(--image_size=36 --batch_size=2 --lanes=2 --repeats=2 --layers=conv1) ;;
      scaling.py) tiny=(--image_size=40 --batch_size=4 --lanes=1,2 --repeats=1) ;;
      allocators.py) tiny=(--quick) ;;
      startup.py) tiny=(--image_size=40 --batch_size=4 --lanes=2 --repeats=1 --strategy=fused) ;;
    esac
  fi
  if [[ $script == epoch_time.py ]]; then tiny+=("--budget=$((left - left / 8))"); fi
  echo "== $name ($SECONDS s)"
  timeout "$left" "$PYTHON" "$HERE/$script" "$@" "${tiny[@]}" --out="$FOLDER/$name.json" ||
    { echo "== $name: failed or out of time (status $?)"; FAILED="${FAILED:-} $name"; }
}

# Ends the suite: 1 where a row failed.
finish() {
  echo "== done in $SECONDS s${FAILED:+, failed:$FAILED}"
  [[ -z ${FAILED:-} ]]
}
