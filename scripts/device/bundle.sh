#!/usr/bin/env bash
# Builds what the GPU machine runs and packs it.
#   scripts/device/bundle.sh [FOLDER]     default .device-bundle
# DEVICE_BUILD names the build tree (build/cuda), DEVICE_JOBS the jobs (2). With DEVICE_HOST_ONLY=1 the bundle holds what needs
# no GPU alone (the step stage), from build/release; with DEVICE_ATTENTION=1 the step attention's bench alone, with the peers that
# the build tree was given headers of.
set -euo pipefail
cd "$(dirname "$0")/../.."
case ${1:-} in -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
to=${1:-.device-bundle}
host_only=${DEVICE_HOST_ONLY:-0}
preset=cuda
programs=(troupe kernels_cuda_test engine_exec_cuda_test bench_cuda bench_cuda_ops bench_cuda_loads bench_cuda_power bench_transport)
also=(troupe_cuda)
if [[ $host_only == 1 ]]; then
  preset=release
  programs=(troupe bench_stage)
  also=()
fi
if [[ ${DEVICE_ATTENTION:-0} == 1 ]]; then
  programs=(bench_cuda_attention)
  also=()
fi
build=${DEVICE_BUILD:-build/$preset}
limit_kib=$((64 * 1024))

cmake --preset "$preset" -B "$build" >/dev/null
cmake --build "$build" -j "${DEVICE_JOBS:-2}" --target "${also[@]}" "${programs[@]}"
rm -rf "$to"
mkdir -p "$to/bin" "$to/lib"
for program in "${programs[@]}"; do strip -o "$to/bin/$program" "$build/bin/$program"; done
# The backends of bench_stage and its clock, where it looks for them.
for library in "$build"/lib/stage/stage_clock.so "$build"/lib/stage/*/libtroupe_*.so; do
  [[ $host_only == 1 ]] || break
  packed=$to/lib/${library#"$build/lib/"}
  mkdir -p "$(dirname "$packed")"
  strip -o "$packed" "$library"
done
perftest=$(command -v ucx_perftest) || { echo "bundle.sh: ucx_perftest is not installed: apt-get install ucx-utils" >&2; exit 1; }
strip -o "$to/bin/ucx_perftest" "$perftest"
((${#also[@]} == 0)) || strip -o "$to/lib/libtroupe_cuda.so" "$build/lib/libtroupe_cuda.so"
# The C and C++ libraries, the driver and CUDA's own are the machine's.
machine='/(ld-linux|libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|libcuda|libcublasLt|libcublas|libcudart)[-.]'
shopt -s nullglob
ldd "$to"/bin/* "$to"/lib/*.so | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u | { grep -vE "$machine" || true; } |
  xargs -r cp -L -t "$to/lib"
# UCX looks for its modules beside its libraries; of them shared memory's copies alone are of use there.
modules=$(dirname "$(ldd "$to/bin/ucx_perftest" | awk '$1 ~ /^libucs\.so/ {print $3}')")/ucx
mkdir -p "$to/lib/ucx"
cp -L "$modules"/libuct_cma.so.0 "$to/lib/ucx/"
# What CUDA loads into a program that is asked to.
if [[ $host_only != 1 ]]; then
  injected=(g++ -O2 -std=c++20 -shared -fPIC -I/usr/local/cuda/include)
  "${injected[@]}" tests/bench/cuda_profile.cpp -o "$to/lib/profile.so"
  "${injected[@]}" engine/exec/cuda/test_break.cpp -o "$to/lib/break.so"
fi
cp -r scripts/device/run.sh scripts/device/steps scripts/device/*.py "$to/"
missing=$(LD_LIBRARY_PATH="$to/lib" ldd "$to"/bin/* | { grep 'not found' || true; })
[[ -z $missing ]] || { echo "bundle.sh: $missing" >&2; exit 1; }
size_kib=$(du -sk "$to" | cut -f1)
echo "$to: $size_kib KiB"
((size_kib <= limit_kib)) || { echo "bundle.sh: more than the $limit_kib KiB that can be carried" >&2; exit 1; }
