#!/usr/bin/env bash
# vae devices --tune: what it prints, that it is kept, and that two runs with it have the same bits.
# tune_test.sh PROGRAM FOLDER, with a GPU or what stands in for one.
set -euo pipefail
vae=$1
folder=$2
rm -rf "$folder"
mkdir -p "$folder"
export XDG_CACHE_HOME=$folder/cache
settings=(--data synthetic:bars --hidden 33,16 --latent 5 --batch 28)

fail() {
    printf 'tune_test: %s\n' "$1" >&2
    exit 1
}
train() { "$vae" train "${settings[@]}" --steps 4 --backend cuda --out "$folder/$1" >/dev/null; }
# A checkpoint's tensors: what is behind its header, whose length is the first eight bytes.
tensors() {
    local file=$folder/$1/checkpoint.safetensors
    tail -c "+$((9 + $(od -An -t u8 -N 8 "$file")))" "$file"
}
same_tensors() { cmp -s <(tensors "$1") <(tensors "$2"); }

train untuned
# Six layers forward, for the rows of a full batch, of what an epoch ends with and of an evaluation;
# and backward for the first two, but for the input of the first layer.
for precision in fp32 tf32 bf16; do
    "$vae" devices --tune "${settings[@]}" --precision "$precision" >"$folder/$precision.txt"
    grep -q "kept in $XDG_CACHE_HOME/vae/matmul-plans.json" "$folder/$precision.txt" ||
        fail "$precision: no word of where plans are kept"
    [[ $(grep -c "^forward .*best of" "$folder/$precision.txt") -eq 18 ]] ||
        fail "$precision: not one row for each product"
    [[ $(grep -c "best of" "$folder/$precision.txt") -eq 40 ]] ||
        fail "$precision: not one row for each product"
done
# Of four hidden layers, in bf16 the plan has epilogues: whatever is measured is what is taken.
for epilogue in 'forward bias-relu 12' 'backward-input relu-backward 8' \
    'backward-weight bias-gradient 8'; do
    [[ $(grep -c "^${epilogue% *} " "$folder/bf16.txt") -eq ${epilogue##* } ]] ||
        fail "bf16: not ${epilogue##* } rows of ${epilogue% *}"
    ! grep -q "^${epilogue% *} " "$folder/fp32.txt" || fail "fp32: rows of ${epilogue% *}"
done
train first
train second
same_tensors first second || fail 'two tuned runs differ'
rm -r "$XDG_CACHE_HOME"
train without
same_tensors untuned without || fail 'two runs without plans differ'
[[ ! -e $XDG_CACHE_HOME ]] || fail 'training kept plans'
"$vae" devices --batch 5 2>"$folder/error.txt" && fail 'settings without --tune pass'
grep -q -- '--tune' "$folder/error.txt" || fail 'no word of --tune'
