#!/usr/bin/env bash
# Packs the real tritonserver, a Python for its backend, and bench_stage for a machine that has none of them and no network.
#   tests/judge/pack.sh PYTHON FOLDER     PYTHON has nvidia-pytriton; FOLDER gets judge.tar.xz and go.sh
# There: bash go.sh. What it prints is described in away.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."
case ${1:-} in -h | --help | "") sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
python=$1 to=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
box=$work/judge
DEVICE_HOST_ONLY=1 scripts/device/bundle.sh "$box"
mkdir -p "$box/examples/models/bard"
cp -r examples/models/bard/hf "$box/examples/models/bard/"
# A simulated executor has no weights.
rm -rf "$box"/examples/models/bard/hf/*.safetensors "$box"/{steps,*.py,run.sh,bin/ucx_perftest,lib/ucx}

ask() { "$python" -c "$1"; }
packages=$(ask 'import pathlib, pytriton; print(pathlib.Path(pytriton.__file__).parents[1])')
version=$(ask 'import sys; print(f"{sys.version_info.major}.{sys.version_info.minor}")')
library=$(ask 'import os; print(os.path.dirname(os.__file__))')
shared=$(ask 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')/libpython$version.so.1.0

# Triton finds its libraries by its own place: ../../../nvidia_pytriton.libs.
triton=$box/triton/site/pytriton/tritonserver
mkdir -p "$triton/bin" "$box/triton/site/nvidia_pytriton.libs" "$box/triton/backends/python" "$box/triton/python/lib" "$box/triton/models/identity/1"
cp "$packages/pytriton/tritonserver/bin/tritonserver" "$triton/bin/"
cp "$packages"/nvidia_pytriton.libs/* "$box/triton/site/nvidia_pytriton.libs/"
rm -f "$box"/triton/site/nvidia_pytriton.libs/libpython*
# ICU's tables, 29 MB that serve the XML of a cloud's storage alone: an empty one, so that the libraries load.
for tables in "$box"/triton/site/nvidia_pytriton.libs/libicudata-*; do
  symbol=$(nm -D --defined-only "$tables" | awk '/_dat$/ {print $3}')
  echo "const char ${symbol}[64] = {0};" | gcc -shared -fPIC -x c - -Wl,-soname,"${tables##*/}" -o "$tables"
done
cp "$packages"/pytriton/tritonserver/backends/python/{libtriton_python.so,triton_python_backend_utils.py} "$box/triton/backends/python/"
cp "$packages/pytriton/tritonserver/python_backend_stubs/$version/triton_python_backend_stub" "$box/triton/backends/python/"
PYTHONPATH=tests/judge "$python" -c '
import sys, servers
print("backend: \"python\"\n" + servers.IDENTITY_CONFIG, file=open(sys.argv[1] + "/config.pbtxt", "w"))
print(servers.IDENTITY, file=open(sys.argv[1] + "/1/model.py", "w"))' "$box/triton/models/identity"

# Of Python what starts it and numpy.
cp -r "$library" "$box/triton/python/lib/python$version"
strip -o "$box/triton/python/lib/libpython$version.so.1.0" "$shared"
# The stub finds Python's own modules, and numpy, by the python3 of its PATH; it heeds neither PYTHONHOME nor PYTHONPATH.
mkdir "$box/triton/python/bin"
cp "$(ask 'import os, sys; print(os.path.realpath(sys.executable))')" "$box/triton/python/bin/python3"
ldd "$library"/lib-dynload/*.so "$box/triton/python/lib/"*.so* | awk '$1 ~ /^lib(ffi|z|expat)\./ && $3 ~ /^\// {print $3}' | sort -u | xargs -r cp -L -t "$box/triton/python/lib"
( cd "$box/triton/python/lib/python$version"
  rm -rf site-packages test idlelib tkinter lib2to3 turtledemo ensurepip pydoc_data distutils config-*
  mkdir site-packages
  cp -r "$packages"/{numpy,numpy.libs} site-packages/ )
find "$box/triton" \( -name __pycache__ -o -name tests \) -prune -exec rm -rf {} +
find "$box/triton" \( -name '*.a' -o -name '*.pyi' \) -delete
strip "$box/triton/python/lib/python$version"/lib-dynload/*.so

mkdir -p "$to"
tar -C "$work" -cf - judge | xz -T2 -6 >"$to/judge.tar.xz"
cp tests/judge/away.sh "$to/go.sh"
ls -l "$to"
