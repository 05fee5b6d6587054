#!/usr/bin/env bash
# On the GPU machine, in the repository: runs checks, serves over HTTP, runs benches; a table comes last.
#   bash .device-bundle/run.sh [FOLDER] [STEPS]
#   STEPS: comma-separated, of kernels,sampling,executor,golden,serve,errors,bench8b,ops,bench06b,memcheck,without;
#   or of each8b,each06b,profile,profile_load,policies8b,racecheck,soak,wire,stage,stages,coldstart,compare8b,compare06b,loads8b,online;
#   with .peer beside the bundle and the step peer before them, the last five measure vLLM too; or, with two GPUs, of
#   tp_tests,tp_bench,tp_serve
# Logs go to $OUT or .device-out. All steps together take at most DEVICE_SECONDS (280).
set -uo pipefail
case ${1:-} in -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
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

cublas_folder() {
  python3 - <<'PY' 2>/dev/null || true
import glob, os, site, sys
for place in sys.path + site.getsitepackages():
    for found in glob.glob(os.path.join(place, "nvidia", "*", "lib", "libcublasLt.so.13")):
        print(os.path.dirname(found)); sys.exit()
PY
}
cublas=$(cublas_folder)
if [[ -z $cublas && ! -e /usr/local/cuda/lib64/libcublasLt.so.13 ]]; then
  cublas=$(dirname "$(timeout 20 find /opt /usr -name 'libcublasLt.so.13' -print -quit 2>/dev/null)")
fi
# NCCL, for several GPUs: beside cuBLASLt among python's packages, or the system's.
nccl=$(python3 - <<'PY' 2>/dev/null || true
import glob, os, site, sys
for place in sys.path + site.getsitepackages():
    for found in glob.glob(os.path.join(place, "nvidia", "nccl", "lib", "libnccl.so.2")):
        print(os.path.dirname(found)); sys.exit()
PY
)
if [[ -z $nccl ]]; then
  nccl=$(dirname "$(timeout 20 find /opt /usr /root -name 'libnccl.so.2' -print -quit 2>/dev/null)" 2>/dev/null)
fi
libraries="$from/lib${cublas:+:$cublas}${nccl:+:$nccl}:/usr/local/cuda/lib64:/usr/local/cuda/extras/CUPTI/lib64:/usr/local/cuda/targets/x86_64-linux/lib:/usr/local/nvidia/lib64"
# Before each command of ours, and none of the machine's.
ours=(env "LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}")

note() { table+=("$(printf '%-28s %s' "$1" "$2")"); }

# one NAME SECONDS COMMAND...: keeps the log and remembers the result. Ends with what is left of the whole.
one() {
  local name=$1 limit=$2 begin=$SECONDS state=ok left=$((budget - SECONDS))
  shift 2
  ((left < limit)) && limit=$left
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

step_kernels() { one kernels 50 "$from/bin/kernels_cuda_test" -d yes; }
step_sampling() { one sampling 30 "$from/bin/engine_exec_cuda_test" -d yes "the device samples*"; }
step_executor() { one executor 60 "$from/bin/engine_exec_cuda_test" -d yes "~the device samples*" "~cuda logits*" "~[ranks]"; }
step_golden() { one golden 40 "$from/bin/engine_exec_cuda_test" -d yes "cuda logits*"; }
step_bench8b() { one bench8b 75 "$from/bin/bench_cuda" --model llama8b --batches 1,8,32,64,128,256 --mixed 64,192; }
step_bench06b() { one bench06b 45 "$from/bin/bench_cuda" --model qwen06b --batches 1,64,256; }
step_ops() { one bench_ops 40 "$from/bin/bench_cuda_ops" 1 8 32 256; }
# What the ladder, which goes up, does not tell: all shortcuts but one.
step_without() {
  one bench_without06b 15 "$from/bin/bench_cuda" --model qwen06b --batches 1,8,32 --prefill 128 --without one_carveout
  one bench_without8b 20 "$from/bin/bench_cuda" --model llama8b --batches 1,8,32 --prefill 128 --without one_carveout
}
# All shortcuts, and all but one.
step_each8b() { one bench_each8b 110 "$from/bin/bench_cuda" --model llama8b --batches 1 --prefill 128 --each 1,8,32,64,256; }
step_each06b() { one bench_each06b 40 "$from/bin/bench_cuda" --model qwen06b --batches 1 --prefill 128 --each 1,8,64,256; }
# Where the time goes, kernel by kernel.
step_profile() {
  one bench_profile8b 60 env "CUDA_INJECTION64_PATH=$from/lib/profile.so" "$from/bin/bench_cuda" --model llama8b --batches 8 --prefill 8192 --mixed 64
}
# Which calls of CUDA hold the host up under a load of prompts and answers.
step_profile_load() {
  python3 "$from"/models.py /tmp/troupe-llama8b llama8b "${limits[@]}"
  one bench_profile_load 60 env "CUDA_INJECTION64_PATH=$from/lib/profile.so" "$from/bin/troupe" bench /tmp/troupe-llama8b/cluster.json \
    --set 'devices=["cuda:0"]' --vocabulary 128256 --rounds 1 --json --load 600/64:96 --load 2048/64:64
}
# The wire between two processes of the host, which needs no GPU. WIRE_ROUNDS: the rounds behind a median.
step_wire() {
  lscpu | grep -E '^(Model name|CPU\(s\))' || true
  cat /sys/kernel/mm/transparent_hugepage/enabled || true
  one bench_wire 240 env "PATH=$from/bin:$PATH" "$from/bin/bench_transport" "${WIRE_ROUNDS:-7}"
}
# The edges against bare grpc++ on the host, which needs no GPU.
step_stage() {
  lscpu | grep -E '^(Model name|CPU\(s\))' || true
  one bench_stage 150 "$from/bin/bench_stage" "$PWD"
  cat "$out/bench_stage.log"
}
# Two stages of a simulated step against one, in processes of this host.
step_stages() {
  one stages 90 env "TROUPE_BIN=$from/bin/troupe" python3 tests/bench/stages.py 7
  note stages "$(tail -n 1 "$out/stages.log" | head -c 200)"
}
# What the scheduler and the device make of loads, with prompts spread over so many steps.
step_policies8b() {
  one bench_policies8b 200 "$from/bin/bench_cuda_loads" 1,64 512/128:384@64 512/128:1024@256 128/128:1024@1024
  one bench_policies8b_long 90 "$from/bin/bench_cuda_loads" 64 2048/128:256@256 1000/1000:256@256
}
step_memcheck() {
  one memcheck 45 compute-sanitizer --error-exitcode 9 "$from/bin/kernels_cuda_test" "cuda silu_mul and embed,cuda rope_store*,cuda gated*"
}

step_racecheck() {
  one racecheck 100 compute-sanitizer --tool racecheck --error-exitcode 9 "$from/bin/kernels_cuda_test" \
    "cuda silu_mul and embed,cuda rope_store*,cuda gated*"
}

# up_file CLUSTER LIMIT NAME PORT OPTIONS...: a server in the background, for at most LIMIT seconds; waits until it is ready. Leaves
# its process in `server`.
up_file() {
  local file=$1 limit=$2 name=$3 port=$4 i
  shift 4
  : >"$out/$name.log"
  # In the foreground, timeout passes a signal on once and not to its group again.
  "${ours[@]}" timeout --foreground "$limit" "$from/bin/troupe" up "$file" --port "$port" "$@" >>"$out/$name.log" 2>&1 &
  server=$!
  for ((i = 0; i < 300; ++i)); do
    grep -q '^ready after' "$out/$name.log" && return 0
    kill -0 "$server" 2>/dev/null || break
    sleep 0.1
  done
  echo "--- $name did not become ready"; head -c 1500 "$out/$name.log"
  return 1
}
up() { up_file "$out/cluster.json" 60 "$@"; }
down() {
  kill "$server" 2>/dev/null
  wait "$server" 2>/dev/null
  return 0
}

# ask PORT BODY FILE
ask() { curl -sS -m 15 "http://127.0.0.1:$1/v1/completions" -H 'content-type: application/json' -d "$2" >"$3" 2>&1; }
text_of() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["choices"][0]["text"])' "$1" 2>&1; }

texts=$(mktemp -d)
serve_on() { # NAME PORT OPTIONS...: answers to NAME.greedy, NAME.seeded, NAME.stream in $texts
  local name=$1 port=$2
  up "$@" || { down; return 1; }
  ask "$port" '{"model":"bard","prompt":"ROMEO:","max_tokens":48,"temperature":0}' "$texts/$name.greedy"
  ask "$port" '{"model":"bard","prompt":"JULIET:","max_tokens":48,"temperature":0.9,"top_p":0.95,"top_k":50,"seed":7}' "$texts/$name.seeded"
  ask "$port" '{"model":"bard","prompt":"HAMLET:","max_tokens":24,"temperature":0,"stream":true}' "$texts/$name.stream"
  local i jobs=()
  for i in {1..16}; do
    ask "$port" "{\"model\":\"bard\",\"prompt\":\"KING $i:\",\"max_tokens\":64,\"temperature\":0}" "$texts/$name.many.$i" &
    jobs+=($!)
  done
  wait "${jobs[@]}"
  down
}

step_serve() {
  local begin=$SECONDS kind same=0 i
  printf '{"model_repository": "%s/examples/models"}' "$PWD" >"$out/cluster.json"
  local gpu=(--set 'devices=["cuda:0"]' --set models.bard.gpu_memory_utilization=0.3)
  serve_on serve_cpu 18431 --set models.bard.dtype=float32 || note serve "FAILED: the CPU server"
  serve_on serve_fp32 18432 "${gpu[@]}" --set models.bard.dtype=float32 || { note serve "FAILED: not ready"; return; }
  serve_on serve_bf16 18433 "${gpu[@]}" || note serve "FAILED: bf16 not ready"
  for kind in greedy seeded; do
    if [[ "$(text_of "$texts/serve_cpu.$kind")" == "$(text_of "$texts/serve_fp32.$kind")" ]]; then
      note "serve $kind" "the text of the GPU in float32 is the CPU's"
    else
      note "serve $kind" "FAILED: the GPU's text in float32 is not the CPU's"
      head -c 300 "$texts/serve_cpu.$kind"; echo; head -c 300 "$texts/serve_fp32.$kind"; echo
    fi
  done
  for i in {1..16}; do
    [[ "$(text_of "$texts/serve_cpu.many.$i")" == "$(text_of "$texts/serve_fp32.many.$i")" ]] && same=$((same + 1))
  done
  note "serve 16 at once" "$same of 16 texts are the CPU's"
  note "serve stream" "$(grep -c '^data: ' "$texts/serve_bf16.stream") events, ends with $(grep '^data: ' "$texts/serve_bf16.stream" | tail -n 1 | head -c 20)"
  tail -c +1 "$texts"/*.greedy "$texts"/*.seeded >"$out/serve_texts.txt"
  note "serve bf16 says" "$(text_of "$texts/serve_bf16.greedy" | tr '\n' '/' | head -c 90)"
  note "serve" "$(grep -h '^ready after' "$out"/serve_*.log | tr '\n' ' '), $((SECONDS - begin)) s in all"
}

# Ranks on two GPUs.
step_tp_tests() { one tp_tests 110 "$from/bin/engine_exec_cuda_test" -d yes "[ranks]"; }
step_tp_bench() {
  local ranks
  for ranks in 1 2; do
    one "bench_tp$ranks" 45 "$from/bin/bench_cuda" --model llama8b --ranks "$ranks" --batches 1,64,256 --prefill 128,2048
  done
  one bench_tp_no_graphs 30 "$from/bin/bench_cuda" --model llama8b --ranks 2 --batches 1,64,256 --prefill 128 --without graphs_of_ranks
}
kill_rank() { curl -sS -m 5 "http://127.0.0.1:$1/troupe/v1/debug/kill" -H 'content-type: application/json' -d '{"actor":"rank"}' 2>&1; }
# killed NAME PORT BODY FILE: asks, ends a rank meanwhile, and says how long the whole took.
killed() {
  local name=$1 port=$2 begin asked said
  begin=$(date +%s%N)
  curl -sS -m 40 "http://127.0.0.1:$port/v1/completions" -H 'content-type: application/json' -d "$3" >"$4" 2>&1 &
  asked=$!
  sleep 0.12
  said=$(kill_rank "$port")
  wait "$asked"
  note "$name" "kill: ${said:0:60}; answered after $((($(date +%s%N) - begin) / 1000000)) ms: $(tail -c 150 "$4" | tr '\n' ' ')"
}
step_tp_serve() {
  local body='{"model":"bard","prompt":"ROMEO:","max_tokens":400,"temperature":0,"ignore_eos":true}' kind
  printf '{"model_repository": "%s/examples/models"}' "$PWD" >"$out/cluster.json"
  local two=(--set 'devices=["cuda:0","cuda:1"]' --set models.bard.tensor_parallel=2 --set models.bard.gpu_memory_utilization=0.3)
  serve_on serve_cpu 18431 --set models.bard.dtype=float32 || note tp_serve "FAILED: the CPU server"
  serve_on serve_tp 18434 "${two[@]}" --set models.bard.dtype=float32 || { note tp_serve "FAILED: not ready"; return; }
  for kind in greedy seeded; do
    if [[ "$(text_of "$texts/serve_cpu.$kind")" == "$(text_of "$texts/serve_tp.$kind")" ]]; then
      note "tp_serve $kind" "the text of two GPUs in float32 is the CPU's"
    else
      note "tp_serve $kind" "FAILED: not the CPU's"
    fi
  done
  up tp_kill 18435 "${two[@]}" --set models.bard.dtype=float32 --fault-injection || { down; note tp_kill "FAILED: not ready"; return; }
  ask 18435 "$body" "$texts/whole"
  killed "tp_kill bard" 18435 "$body" "$texts/killed"
  if [[ "$(text_of "$texts/whole")" == "$(text_of "$texts/killed")" ]]; then
    note tp_kill "the text of a stream whose rank was ended is the text without"
  else
    note tp_kill "FAILED: another text"
  fi
  down
  python3 "$from"/models.py /tmp/troupe-tp llama8b "${limits[@]}" tensor_parallel_size=2
  cp /tmp/troupe-tp/cluster.json "$out/cluster_tp8b.json"
  up_file /tmp/troupe-tp/cluster.json 60 tp_8b 18436 --fault-injection --set 'devices=["cuda:0","cuda:1"]' || { down; note tp_8b "FAILED: not ready"; return; }
  body='{"model":"llama8b","prompt":"aaab aaac","max_tokens":300,"temperature":0,"ignore_eos":true}'
  ask 18436 "$body" "$texts/whole8b"
  killed "tp_kill 8b" 18436 "$body" "$texts/killed8b"
  note tp_8b "$(grep -h '^ready after' "$out/tp_8b.log"); $(tail -n 2 "$out/tp_8b.log" | tr '\n' ' ' | head -c 300)"
  down
  local said
  said=$("${ours[@]}" timeout 20 "$from/bin/troupe" up "$out/cluster.json" --port 18437 --set 'devices=["cuda:0"]' --set models.bard.tensor_parallel=2 2>&1 | tail -n 1)
  note "error: one GPU for two ranks" "${said:0:200}"
  said=$(env "LD_LIBRARY_PATH=$from/lib:$cublas:/usr/local/cuda/lib64" timeout 20 "$from/bin/troupe" up "$out/cluster.json" --port 18438 "${two[@]}" 2>&1 | grep -ai nccl | tail -n 1)
  note "error: no NCCL" "${said:0:250}"
}

step_errors() {
  printf '{"model_repository": "%s/examples/models"}' "$PWD" >"$out/cluster.json"
  local said
  said=$("${ours[@]}" timeout 15 "$from/bin/troupe" up "$out/cluster.json" --port 18440 --set 'devices=["cuda:9"]' 2>&1 | tail -n 1)
  note "error: no such device" "${said:0:150}"
  said=$("${ours[@]}" timeout 15 "$from/bin/troupe" up "$out/cluster.json" --port 18441 --set 'devices=["cuda:0"]' \
    --set models.bard.kv_cache_memory_bytes=1000 2>&1 | tail -n 1)
  note "error: too little memory" "${said:0:150}"
  said=$(CUDA_VISIBLE_DEVICES=-1 "${ours[@]}" timeout 15 "$from/bin/troupe" up "$out/cluster.json" --port 18442 --set 'devices=["cuda:0"]' 2>&1 | tail -n 1)
  note "error: no GPU" "${said:0:150}"
}

# SOAK_SECONDS of 256 streams of the 8B, a part of which are cut off at random.
step_soak() {
  local seconds=${SOAK_SECONDS:-360}
  python3 "$from"/models.py /tmp/troupe-llama8b llama8b "${limits[@]}"
  up_file /tmp/troupe-llama8b/cluster.json $((seconds + 90)) soak_server 18451 --set 'devices=["cuda:0"]' || { down; note soak "FAILED: not ready"; return; }
  # The process below `timeout`.
  one soak $((seconds + 60)) python3 "$from"/soak.py http://127.0.0.1:18451 llama8b "$(pgrep -P "$server" || echo "$server")" "$seconds"
  note soak "$(tail -n 1 "$out/soak.log" | head -c 400)"
  down
}
# From the start of the process to the first token, the 8B's 16 GB in the page cache; vLLM too, where it is installed.
step_coldstart() {
  local begin
  python3 "$from"/models.py /tmp/troupe-file llama8b "${limits[@]}" 'load_format="auto"'
  python3 "$from"/weights.py /tmp/troupe-file/hf
  cat /tmp/troupe-file/hf/model.safetensors >/dev/null
  one coldstart 90 python3 tests/bench/start.py "$from/bin/troupe" /tmp/troupe-file/cluster.json --model llama8b --rounds 5 --set 'devices=["cuda:0"]'
  note coldstart "$(tail -n 1 "$out/coldstart.log" | head -c 300)"
  [[ -e /tmp/peer/env.sh ]] || return
  begin=$SECONDS
  (
    # shellcheck disable=SC1091
    . /tmp/peer/env.sh
    exec setsid python3 -m vllm.entrypoints.cli.main serve /tmp/troupe-file/hf --host 127.0.0.1 --port 8322 \
      --dtype bfloat16 --max-model-len 9216 --max-num-seqs 256 --max-num-batched-tokens 8192
  ) >"$out/coldstart.vllm.log" 2>&1 &
  local serving=$!
  until curl -sf -m 20 http://127.0.0.1:8322/v1/completions -H 'content-type: application/json' \
    -d '{"model":"/tmp/troupe-file/hf","prompt":"aaab","max_tokens":1}' >/dev/null || ((SECONDS - begin > 150)); do sleep 0.2; done
  note "coldstart vLLM" "$((SECONDS - begin)) s to the first token"
  end_peer "$serving"
}

# vLLM, as ../shared/peer packs it into .peer.
step_peer() {
  local begin=$SECONDS
  if timeout -k 5 90 bash .peer/install_on_device.sh >"$out/peer_install.log" 2>&1; then
    note peer "installed in $((SECONDS - begin)) s: $(tail -n 1 "$out/peer_install.log")"
  else
    note peer "FAILED: $(tail -n 1 "$out/peer_install.log" | head -c 150)"
    rm -f /tmp/peer/env.sh
  fi
}
# end_peer GROUP: ends a process group of vLLM's and what it left, then waits until the GPU's memory is free. Its engine is a
# process of its own, which outlives the one that began it.
end_peer() {
  local file pid i
  kill -KILL -- "-$1" 2>/dev/null
  for file in /proc/[0-9]*/environ; do
    pid=${file//[^0-9]/}
    if grep -qz '^PEER_ROOT=' "$file" 2>/dev/null; then kill -KILL "$pid" 2>/dev/null; fi
  done
  wait "$1" 2>/dev/null
  for ((i = 0; i < 40; ++i)); do
    [[ $(nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits | head -n 1) -lt 3000 ]] && return
    sleep 0.5
  done
  note "after vLLM" "FAILED: $(nvidia-smi --query-gpu=memory.used --format=csv,noheader) of the GPU are still taken"
}
with_peer() { # FILE SECONDS COMMAND...
  local file=$1 limit=$2 group
  shift 2
  (
    # shellcheck disable=SC1091
    . /tmp/peer/env.sh
    export VLLM_CACHE_ROOT=/tmp/peer/cache/vllm TRITON_CACHE_DIR=/tmp/peer/cache/triton TORCHINDUCTOR_CACHE_DIR=/tmp/peer/cache/inductor
    exec setsid timeout -k 5 "$limit" "$@"
  ) >"$file" 2>&1 &
  group=$!
  wait "$group" || note "$(basename "$file")" "FAILED: $(tail -n 1 "$file" | head -c 150)"
  end_peer "$group"
}
# vLLM's, the share of the memory too.
limits=(max_num_seqs=256 max_num_batched_tokens=8192 max_model_len=9216 gpu_memory_utilization=0.92)

# compare NAME MODEL VOCABULARY PEER_SECONDS OUR_SECONDS MEASURES...: the same measures of both, one after the other.
compare() {
  local name=$1 model=$2 vocabulary=$3 theirs=$4 mine=$5 begin=$SECONDS
  shift 5
  # Without it ours are measured alone.
  [[ -e /tmp/peer/env.sh ]] && with_peer "$out/$name.vllm.log" "$theirs" python3 "$from"/peer.py "$model" "$@"
  python3 "$from"/models.py "/tmp/troupe-$model" "$model" "${limits[@]}"
  one "$name.troupe" "$mine" "$from/bin/troupe" bench "/tmp/troupe-$model/cluster.json" --set 'devices=["cuda:0"]' \
    --vocabulary "$vocabulary" --rounds 2 --json "$@"
  note "$name" "$((SECONDS - begin)) s"
  python3 "$from"/ratios.py "$model" "$out/$name.troupe.log" "$out/$name.vllm.log" | tee -a "$out/ratios.txt"
}
step_compare8b() {
  compare compare8b llama8b 128256 230 150 --decode 1,8,32,64,128,256 --first-token 128,512,2048,8192 \
    --load 128/128:1024 --load 2048/128:256 --load 1000/1000:256
}
step_compare06b() {
  compare compare06b qwen06b 151936 170 70 --decode 1,64,256 --first-token 128,2048 --load 128/128:2048 --load 1000/1000:256
}

step_loads8b() {
  compare loads8b llama8b 128256 200 130 --load 128/128:1024 --load 2048/128:256 --load 1000/1000:256
}

# Both servers under the same client.
online_loads=(--load 512/128:16@1 --load 512/128:80@8 --load 512/128:384@64 --load 512/128:1024@256)
online_peer() {
  local serving i
  (
    # shellcheck disable=SC1091
    . /tmp/peer/env.sh
    exec setsid python3 -m vllm.entrypoints.cli.main serve /tmp/troupe-llama8b/hf --load-format dummy --host 127.0.0.1 --port 8321 \
      --dtype bfloat16 --max-model-len 9216 --max-num-seqs 256 --max-num-batched-tokens 8192
  ) >"$out/online_server.vllm.log" 2>&1 &
  serving=$!
  for ((i = 0; i < 150; ++i)); do curl -sf -m 2 http://127.0.0.1:8321/health >/dev/null && break; sleep 1; done
  one online.vllm 130 "$from/bin/troupe" bench --url http://127.0.0.1:8321 --vocabulary 128256 --json "${online_loads[@]}"
  end_peer "$serving"
}
step_online() {
  python3 "$from"/models.py /tmp/troupe-llama8b llama8b "${limits[@]}"
  cp /tmp/troupe-llama8b/cluster.json "$out/cluster.json"
  [[ -e /tmp/peer/env.sh ]] && online_peer
  up_file /tmp/troupe-llama8b/cluster.json 150 online_server.troupe 18450 --set 'devices=["cuda:0"]' || { down; note online "FAILED: not ready"; return; }
  one online.troupe 120 "$from/bin/troupe" bench --url http://127.0.0.1:18450 --vocabulary 128256 --json "${online_loads[@]}"
  down
  note "online" "$(grep -h '^ready after' "$out/online_server.troupe.log")"
  python3 "$from"/ratios.py online "$out/online.troupe.log" "$out/online.vllm.log" | tee -a "$out/ratios.txt"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
echo "cuBLASLt from ${cublas:-/usr/local/cuda}, NCCL from ${nccl:-nowhere}"
for step in ${steps//,/ }; do
  if declare -F "step_$step" >/dev/null; then "step_$step"; else note "$step" "FAILED: no such step"; fi
done
echo "=== results after $SECONDS s"
cat "$out"/bench*.log "$out"/ratios.txt 2>/dev/null || true
printf '%s\n' "${table[@]}"
[[ "${table[*]}" != *FAILED* ]]
