#!/usr/bin/env bash
# Ask a Triton server what is heard first in a sound: ./ask.sh clip.wav [http://localhost:8000]
# Prints "probability:index:label", best first. Needs ffmpeg and curl.
set -euo pipefail
export LC_ALL=C # or od would write 0,5
[[ $# -ge 1 ]] || { echo "usage: ./ask.sh clip.wav [http://localhost:8000]" >&2; exit 2; }
bundle=$(cd "$(dirname "$0")" && pwd)
about() { sed -n "s/^ *\"$1\": \"\{0,1\}\([^\",]*\)\"\{0,1\},\{0,1\}$/\1/p" "$bundle/model.json"; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Channels averaged, as the model was trained; what -ac 1 makes of stereo is 3 dB louder.
mean="aformat=sample_fmts=flt,pan=mono|c0<c0$(printf '+c%d' {1..63})"
ffmpeg -nostdin -v error -xerror -y -i "file:$1" -af "$mean" -ar "$(about sample_rate)" -f f32le "$work/clip.f32"
head -c "$((4 * $(about window)))" "$work/clip.f32" > "$work/window.f32"
count=$(($(wc -c < "$work/window.f32") / 4))
((count >= $(about shortest))) || {
    echo "$1: $count samples at $(about sample_rate) Hz; the model looks at $(about shortest) and more" >&2
    exit 1
}
samples=$(od -An -v -tf4 -w4 "$work/window.f32" | tr -d ' ' | paste -sd,)
[[ $samples != *n* ]] || { echo "$1: holds NaN or infinite samples" >&2; exit 1; }

printf '{"inputs": [{"name": "waveform", "shape": [1, %d], "datatype": "FP32", "data": [%s]}],
"outputs": [{"name": "probabilities", "parameters": {"classification": %d}}]}' \
    "$count" "$samples" "$(about top)" > "$work/request.json"
curl -sS --fail-with-body "${2:-http://localhost:8000}/v2/models/$(about name)/infer" -d @"$work/request.json"
