#!/usr/bin/env bash
# On a machine that pack.sh packed for: the identity model of bench_stage beside the same in the real tritonserver, the servers on the
# first half of the CPUs and the clients on the second; then once with all CPUs for both, while JUDGE_SECONDS (54) last.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
budget=${JUDGE_SECONDS:-54}
work=$(mktemp -d /tmp/judge.XXXXXX)
server=0
left() { echo $((budget - SECONDS > 1 ? budget - SECONDS : 1)); }
# tritonserver and its stub.
all_of_server() {
  echo "$server"
  grep -l "^PPid:[[:space:]]*$server\$" /proc/[0-9]*/status 2>/dev/null | cut -d/ -f3
}
finish() {
  if ((server != 0)); then
    local all
    all=$(all_of_server)
    kill "$server" 2>/dev/null
    for ((i = 0; i < 20; ++i)); do
      kill -0 "$server" 2>/dev/null || break
      sleep 0.2
    done
    # shellcheck disable=SC2086
    kill -9 $all 2>/dev/null
    wait "$server" 2>/dev/null
  fi
  rm -rf "$work"
}
trap finish EXIT
tar -C "$work" -xJf "$here/judge.tar.xz" ||
  python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/judge.tar.xz" "$work" || exit 1
cd "$work/judge" || exit 1
echo "unpacked after $SECONDS s; $(nproc) CPUs; $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1); /dev/shm $(df -h --output=avail /dev/shm | tail -n 1)"

# The Python that came along.
python() {
  LD_LIBRARY_PATH=$PWD/triton/python/lib triton/python/bin/python3 "$@"
}
read -r http grpc < <(python -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*[s.getsockname()[1] for s in held])')
cpus=$(nproc)
half=$((cpus / 2))
servers=0-$((half - 1)) clients=$half-$((cpus - 1))
# No library of the machine's but the C and C++ ones. No GPU: the model has none either.
start_triton() {
  env -u LD_PRELOAD LD_LIBRARY_PATH="$PWD/triton/site/nvidia_pytriton.libs:$PWD/triton/python/lib" PATH="$PWD/triton/python/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 CUDA_VISIBLE_DEVICES= taskset -c "$1" \
    triton/site/pytriton/tritonserver/bin/tritonserver --model-repository="$PWD/triton/models" --backend-directory="$PWD/triton/backends" \
    --http-port="$http" --grpc-port="$grpc" --allow-metrics=false --allow-gpu-metrics=false --pinned-memory-pool-byte-size=0 >triton.log 2>&1 &
  server=$!
  for ((i = 0; i < 150; ++i)); do
    kill -0 "$server" 2>/dev/null || break
    python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:$http/v2/health/ready', timeout=1)" 2>/dev/null && return 0
    sleep 0.2
  done
  echo "tritonserver is not ready after $SECONDS s:"
  grep -aE 'E[0-9]{4}|rror|libpython|failed' triton.log | head -c 2500
  tail -n 15 triton.log | head -c 2000
  return 1
}
bench() {
  LD_LIBRARY_PATH="$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" timeout -k 1 "$(left)" bin/bench_stage . echo "$@" 2>&1
}

peer=()
start_triton "$servers" && peer=("peer=$grpc,$server")
echo "tritonserver $(sed -n 's/.*server_version *| *\([0-9.]*\).*/\1/p' triton.log) ready after $SECONDS s"
echo "--- servers on CPUs $servers, clients on $clients"
bench first "cpus=$servers/$clients" "${peer[@]}" || echo "FAILED ($?) after $SECONDS s"
if ((${#peer[@]} != 0 && $(left) > 12)); then
  for one in $(all_of_server); do taskset -apc "0-$((cpus - 1))" "$one" >/dev/null 2>&1; done
  echo "--- all on all CPUs"
  bench "${peer[@]}" || echo "FAILED ($?) after $SECONDS s"
fi
echo "ended after $SECONDS s"
