#!/usr/bin/env bash
# On the GPU machine, in the repository: runs checks, serves over HTTP, runs benches; a table comes last.
#   bash .device-bundle/run.sh [FOLDER] [STEPS] [STEPS_OF_A_SECOND_GPU]
#   STEPS: comma-separated, of kernels,sampling,executor,golden,serve,errors,bench8b,ops,bench06b,memcheck,without (all of these
#   where none is named); of each8b,each06b,again,deterministic,power,profile,profile06b,profile_load,policies8b,racecheck,memory8b,
#   soak,swap,spoiled,lost,tp_shared,tp_shared8b,wire,stage,stages,coldstart,logits,attention; beside vLLM, with .peer beside the bundle and the step peer once on the machine, of
#   compare8b,steps8b,decodes8b,loads8b,long8b,online,compare06b,decodes06b, and of it alone with its own limits defaults8b,
#   defaults_steps8b,defaults_long8b,defaults_online,defaults06b; with two GPUs, of tp_tests,tp_bench,tp_serve,tp_lost. README.md says how long each takes.
# Steps of a second GPU run beside the others, each list on a GPU of its own. Logs go to $OUT or .device-out. All steps together take
# at most DEVICE_SECONDS (280).
set -uo pipefail
case ${1:-} in -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
all_steps=kernels,sampling,executor,golden,serve,errors,bench8b,ops,bench06b,memcheck,without
from=$(realpath "${1:-.device-bundle}")
steps=${2:-$all_steps}
out=${OUT:-.device-out}
mkdir -p "$out"
chmod +x "$from"/bin/* 2>/dev/null || true
out=$(realpath "$out")
PATH=$PATH:/usr/local/cuda/bin
budget=${DEVICE_SECONDS:-280}
table=()
if [[ -n ${3:-} ]]; then
  CUDA_VISIBLE_DEVICES=1 OUT=$out/second bash "$0" "$from" "$3" >"$out/second.txt" 2>&1 &
  second=$!
  export CUDA_VISIBLE_DEVICES=0
fi
# The GPU of these steps, for nvidia-smi, which knows nothing of CUDA_VISIBLE_DEVICES.
gpu=${CUDA_VISIBLE_DEVICES:-0}
gpu=${gpu%%,*}
# Models for this process alone.
# shellcheck disable=SC2034
models=/tmp/troupe-$gpu
mkdir -p "$models"

# folder_of LIBRARY: where python's packages of NVIDIA have it.
folder_of() {
  python3 - "$1" <<'PY' 2>/dev/null || true
import glob, os, site, sys
for place in sys.path + site.getsitepackages():
    for found in glob.glob(os.path.join(place, "nvidia", "*", "lib", sys.argv[1])):
        print(os.path.dirname(found)); sys.exit()
PY
}
cublas=$(folder_of libcublasLt.so.13)
if [[ -z $cublas && ! -e /usr/local/cuda/lib64/libcublasLt.so.13 ]]; then
  cublas=$(dirname "$(timeout 20 find /opt /usr -name 'libcublasLt.so.13' -print -quit 2>/dev/null)")
fi
# NCCL, for several GPUs: beside cuBLASLt among python's packages, or the system's.
nccl=$(folder_of libnccl.so.2)
if [[ -z $nccl ]]; then
  nccl=$(dirname "$(timeout 20 find /opt /usr /root -name 'libnccl.so.2' -print -quit 2>/dev/null)" 2>/dev/null)
fi
libraries="$from/lib${cublas:+:$cublas}${nccl:+:$nccl}:/usr/local/cuda/lib64:/usr/local/cuda/extras/CUPTI/lib64:/usr/local/cuda/targets/x86_64-linux/lib:/usr/local/nvidia/lib64"
# Before each command of ours, and none of the machine's.
ours=(env "LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")
# Behind it, before a command of the machine's.
# shellcheck disable=SC2034
machine=(env "LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-}")

note() { table+=("$(printf '%-28s %s' "$1" "$2")"); }

# within SECONDS: those, or what is left of the whole.
within() {
  local left=$((budget - SECONDS))
  echo $((left < $1 ? left : $1))
}
# one NAME SECONDS COMMAND...: keeps the log and remembers the result. Ends with what is left of the whole.
one() {
  local name=$1 limit begin=$SECONDS state=ok
  limit=$(within "$2")
  shift 2
  if ((limit < 3)); then note "$name" "not run: no time left"; return; fi
  "${ours[@]}" timeout -k 2 "$limit" "$@" >"$out/$name.log" 2>&1 || state="FAILED ($?)"
  if [[ $state != ok ]]; then
    echo "--- $name $state"
    grep -aE -A12 'FAILED|error|Error|: cuda' "$out/$name.log" | head -c 1800
    echo; echo "... the end:"
    tail -c 500 "$out/$name.log"
  fi
  note "$name" "$state, $((SECONDS - begin)) s: $(tail -n 4 "$out/$name.log" | grep -aE 'passed|failed|ERROR' | tail -n 1)"
}

# Of all servers and benches of large models: vLLM's, the share of the memory too. 256 answers of 2,048 do not fit: what
# is preempted waits in host memory.
# shellcheck disable=SC2034
limits=(max_num_seqs=256 max_num_batched_tokens=8192 max_model_len=9216 gpu_memory_utilization=0.92 swap_space=16)

for part in "$from"/steps/*.sh; do
  # shellcheck disable=SC1090
  . "$part"
done

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
echo "cuBLASLt from ${cublas:-/usr/local/cuda}, NCCL from ${nccl:-nowhere}"
# A run that times anything opens with what bounds the card in this hour.
if [[ $steps =~ (bench|compare|steps|decodes|loads|long|online|defaults|policies|each|without|deterministic) && -x $from/bin/bench_cuda_ops ]]; then
  one bench_limits 20 "$from/bin/bench_cuda_ops" limits
fi
for step in ${steps//,/ }; do
  if declare -F "step_$step" >/dev/null; then "step_$step"; else note "$step" "FAILED: no such step"; fi
done
echo "=== results after $SECONDS s"
cat "$out"/bench*.log "$out"/ratios.txt 2>/dev/null || true
printf '%s\n' "${table[@]}"
failed=0
[[ "${table[*]}" == *FAILED* ]] && failed=1
if [[ -n ${second:-} ]]; then
  wait "$second" || failed=1
  echo "=== on the second GPU"
  cat "$out/second.txt"
fi
((failed == 0))
