# shellcheck shell=bash disable=SC2154
# Correctness of kernels and of the executor, and errors as sentences.
# Sourced by run.sh.

step_kernels() { one kernels 120 "$from/bin/kernels_cuda_test" -d yes; }
# Thousands of times the same.
step_again() { one again 150 "$from/bin/kernels_cuda_test" -d yes "[again]"; }
step_sampling() { one sampling 30 "$from/bin/engine_exec_cuda_test" -d yes "the device samples*"; }
step_executor() { one executor 60 "$from/bin/engine_exec_cuda_test" -d yes "~[spoiled]" "~the device samples*" "~cuda logits*" "~[ranks]"; }
step_golden() { one golden 40 "$from/bin/engine_exec_cuda_test" -d yes "cuda logits*,cuda greedy tokens*"; }

step_memcheck() {
  one memcheck 45 compute-sanitizer --error-exitcode 9 "$from/bin/kernels_cuda_test" "cuda silu_mul and embed,cuda rope_store*,cuda gated*"
  one memcheck_wide 60 compute-sanitizer --error-exitcode 9 "$from/bin/kernels_cuda_test" "cuda products of many rows*,cuda: *,cuda attention of prompts around whole tiles"
}

step_racecheck() {
  one racecheck 100 compute-sanitizer --tool racecheck --error-exitcode 9 "$from/bin/kernels_cuda_test" \
    "cuda silu_mul and embed,cuda rope_store*,cuda gated*"
}

# What an error of the device leaves behind, which spoils the device for a process.
step_spoiled() { one spoiled 30 "$from/bin/engine_exec_cuda_test" "[spoiled]"; }

# tells NAME STATUS SAID WORDS...: that a command ended by itself, with an error, and said all of these words.
tells() {
  local name=$1 status=$2 said=$3 word
  shift 3
  if [[ $status != 1 ]]; then note "$name" "FAILED: ended with $status: ${said:0:150}"; return; fi
  for word in "$@"; do
    [[ $said == *"$word"* ]] || { note "$name" "FAILED: no '$word' in: ${said:0:250}"; return; }
  done
  note "$name" "${said:0:250}"
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
  if [[ -n $nccl ]]; then
    said=$("${ours[@]}" timeout 30 "$from/bin/troupe" up "$out/cluster.json" --port 18437 --set 'devices=["cuda:0"]' \
      --set models.bard.tensor_parallel=2 2>&1)
    tells "error: one GPU for two ranks" $? "$(tail -n 1 <<<"$said")" "the same GPU"
  fi
  errors_without_nccl
}
# A model of two ranks where there is no NCCL: what check and up say, and that a server which is to load it goes on.
errors_without_nccl() {
  local folder=$out/no_nccl said status devices='["cuda:0"]' name
  local words=("needs NVIDIA's NCCL" "libnccl.so.2 cannot be opened" "LD_LIBRARY_PATH" '"tensor_parallel_size": 1')
  (($(nvidia-smi -L | wc -l) > 1)) && devices='["cuda:0","cuda:1"]'
  rm -rf "$folder"
  for name in bard pair; do mkdir -p "$folder/models/$name/1"; done
  printf '{"model": "%s/examples/models/bard/hf", "gpu_memory_utilization": 0.3}' "$PWD" >"$folder/models/bard/1/model.json"
  printf '{"model": "%s/examples/models/bard/hf", "gpu_memory_utilization": 0.3, "tensor_parallel_size": 2}' "$PWD" >"$folder/models/pair/1/model.json"
  printf '{"model_repository": "models"}' >"$folder/cluster.json"
  # Where the system's loader knows one, a file that is none stands before it.
  local hidden=${libraries/":$nccl:"/:}
  if ldconfig -p 2>/dev/null | grep -q 'libnccl\.so\.2'; then
    mkdir "$folder/lib"
    echo none >"$folder/lib/libnccl.so.2"
    hidden=$folder/lib:$hidden
  fi
  local ours=(env "LD_LIBRARY_PATH=$hidden")
  said=$("${ours[@]}" timeout 30 "$from/bin/troupe" check "$folder/cluster.json" --set "devices=$devices" 2>&1)
  status=$?
  tells "check without NCCL" $status "$(grep -a NCCL <<<"$said" | tail -n 1)" "${words[@]}"
  said=$("${ours[@]}" timeout 30 "$from/bin/troupe" up "$folder/cluster.json" --port 18443 --set "devices=$devices" 2>&1)
  status=$?
  tells "up without NCCL" $status "$(grep -a NCCL <<<"$said" | tail -n 1)" "${words[@]}"
  up_file "$folder/cluster.json" 60 no_nccl 18444 --set "devices=$devices" --model-control-mode explicit --load-model bard ||
    { down; note "load without NCCL" "FAILED: the server is not ready"; return; }
  status=$(curl -sS -m 40 -o "$folder/load" -w '%{http_code}' -X POST http://127.0.0.1:18444/v2/repository/models/pair/load -d '{}' 2>&1)
  said=$(cat "$folder/load" 2>/dev/null)
  # The sentence stands in JSON.
  tells "load without NCCL ($status)" "$([[ $status == [45]?? ]] && echo 1 || echo "$status")" "${said//\\\"/\"}" "${words[@]}"
  ask 18444 '{"model":"bard","prompt":"ROMEO:","max_tokens":8,"temperature":0}' "$folder/answer"
  said=$(text_of "$folder/answer" | tr '\n' '/')
  if kill -0 "$server" 2>/dev/null && grep -q '"choices"' "$folder/answer"; then
    note "after it" "the server lives, bard says ${said:0:60}"
  else
    note "after it" "FAILED: $(kill -0 "$server" 2>&1 && echo "the server lives"), $(head -c 150 "$folder/answer")"
  fi
  down
}
