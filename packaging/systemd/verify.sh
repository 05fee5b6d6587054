#!/usr/bin/env bash
# verify.sh UNIT PROGRAM: has systemd read the unit, with PROGRAM in place of the one that is installed later.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
sed "s#/usr/bin/troupe#$2#" "$1" >"$folder/$(basename "$1")"
grep -q "^ExecStart=$2 up " "$folder/$(basename "$1")"
said=$(systemd-analyze verify "$folder/$(basename "$1")" 2>&1) || { echo "$said"; exit 1; }
# Words about the unit itself are mistakes, too; others are about the machine.
if grep -F "$(basename "$1" .service)" <<<"$said"; then exit 1; fi
echo "the unit is good"
