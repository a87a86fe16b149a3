#!/usr/bin/env bash
# vae devices --tune: what it prints, that it is kept, that runs take it, and that two of them have
# the same bits.
# tune_test.sh PROGRAM FOLDER, with a GPU or what stands in for one.
set -euo pipefail
vae=$1
folder=$2
rm -rf "$folder"
mkdir -p "$folder"
export XDG_CACHE_HOME=$folder/cache
settings=(--data synthetic:bars --hidden 33,16 --latent 5 --batch 28 --set train.graph_steps=2)

fail() {
    printf 'tune_test: %s\n' "$1" >&2
    exit 1
}
# train NAME [OPTION...]
train() {
    local name=$1
    shift
    "$vae" train "${settings[@]}" --steps 4 --backend cuda --out "$folder/$name" "$@" \
        >"$folder/$name.txt"
}
# The plan that a run says that it takes.
plan_of() { sed -n 's/^backend: .*, plan \([^,]*\), .*/\1/p' "$folder/$1.txt"; }
# That of "auto" from now on, as tuning says.
tuned_plan() { sed -n 's/^train.plan = "auto" takes \(.*\) for such steps.*/\1/p' "$1"; }
# A checkpoint's tensors: what is behind its header, whose length is the first eight bytes.
tensors() {
    local file=$folder/$1/checkpoint.safetensors
    tail -c "+$((9 + $(od -An -t u8 -N 8 "$file")))" "$file"
}
same_tensors() { cmp -s <(tensors "$1") <(tensors "$2"); }

# Before anything is measured.
touch "$folder/file"
status=0
message=$(XDG_CACHE_HOME=$folder/file "$vae" devices --tune "${settings[@]}" 2>&1 >/dev/null) || status=$?
[[ $status -eq 2 && $message == "vae: error: "*"$folder/file"* && $message != *$'\n'* ]] ||
    fail "a file that cannot be written: status $status, $message"

"$vae" devices | grep -q '^CUDA driver [0-9.]*, runtime [0-9.]*, cuBLASLt [0-9]\{5,\}$' ||
    fail 'no word of the versions'
train untuned
[[ $(plan_of untuned) == cublas ]] || fail 'no plan by counting'
# Plain products: six layers forward, for the rows of a full batch, of what an epoch ends with and
# of an evaluation; and backward for the first two, but for the input of the first layer. Then those
# of four hidden layers with epilogues, whatever counting finds: each plan is measured with the
# algorithms that it would have.
for precision in fp32 tf32 bf16; do
    report=$folder/tune_$precision.txt
    "$vae" devices --tune "${settings[@]}" --precision "$precision" >"$report"
    grep -q "kept in $XDG_CACHE_HOME/vae/matmul-plans.json" "$report" ||
        fail "$precision: no word of where plans are kept"
    for rows in 'forward  18' 'backward-input  10' 'backward-weight  12' 'forward bias-relu 12' \
        'backward-input relu-backward 8' 'backward-weight bias-gradient 8'; do
        [[ $(grep -c "^${rows% *} .*best of" "$report") -eq ${rows##* } ]] ||
            fail "$precision: not ${rows##* } rows of ${rows% *}"
    done
    counted=cublas
    [[ $precision != bf16 ]] || counted=epilogue
    for plan in cublas epilogue fused; do
        label=$plan
        [[ $plan != "$counted" ]] || label="$plan (as counted)"
        [[ $(grep -c "^$label  *[0-9.]*\$" "$report") -eq 1 ]] ||
            fail "$precision: no row of $label"
    done
    train "taken_$precision" --precision "$precision"
    [[ $(plan_of "taken_$precision") == "$(tuned_plan "$report")" ]] ||
        fail "$precision: a run has not the plan that was kept"
done
# Of a plan that is set its products alone.
"$vae" devices --tune "${settings[@]}" --precision bf16 --plan cublas >"$folder/tune_set.txt"
[[ $(grep -c 'best of' "$folder/tune_set.txt") -eq 40 ]] ||
    fail 'a plan that is set: not its products'
! grep -q 'us a step' "$folder/tune_set.txt" || fail 'a plan that is set: other plans'
train set --plan fused
[[ $(plan_of set) == fused ]] || fail 'a plan that is set is not taken'
train first
train second
same_tensors first second || fail 'two tuned runs differ'
rm -r "$XDG_CACHE_HOME"
train without
same_tensors untuned without || fail 'two runs without plans differ'
[[ ! -e $XDG_CACHE_HOME ]] || fail 'training kept plans'
"$vae" devices --batch 5 2>"$folder/error.txt" && fail 'settings without --tune pass'
grep -q -- '--tune' "$folder/error.txt" || fail 'no word of --tune'
