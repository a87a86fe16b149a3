# Shared by the scripts in the folder above, which source it.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
jobs=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}
export root jobs

say() { printf '%s\n' "$*" >&2; }

die() {
    say "${0##*/}: error: $*"
    exit 1
}

# One line a package: Debian's name | what it is | how to tell that it is there without Debian's
# package (a command, a header, a library or a folder).
package_table='
g++|a C++20 compiler|command c++
cmake|CMake 3.25 or newer, https://cmake.org|command cmake
ninja-build|Ninja, https://ninja-build.org|command ninja
libcli11-dev|CLI11, https://github.com/CLIUtils/CLI11|header CLI/CLI.hpp
nlohmann-json3-dev|JSON for Modern C++, https://github.com/nlohmann/json|header nlohmann/json.hpp
libfmt-dev|{fmt}, https://github.com/fmtlib/fmt|header fmt/format.h
libstb-dev|stb, https://github.com/nothings/stb|header stb/stb_image_write.h
libtomlplusplus-dev|toml++, https://github.com/marzer/tomlplusplus|header toml++/toml.h
zlib1g-dev|zlib, https://zlib.net|header zlib.h
libopenblas-openmp-dev|OpenBLAS built with OpenMP, https://www.openblas.net|library openblas
dataset-fashion-mnist|Fashion-MNIST (or set VAE_DATA to its folder), https://github.com/zalandoresearch/fashion-mnist|data fashion-mnist
libgtest-dev|GoogleTest, https://github.com/google/googletest|header gtest/gtest.h
libgmock-dev|GoogleMock, https://github.com/google/googletest|header gmock/gmock.h
libbenchmark-dev|Google Benchmark, https://github.com/google/benchmark|header benchmark/benchmark.h
clang-format|clang-format 14|command clang-format
clang-tidy|clang-tidy 14|command clang-tidy
python3|Python 3.11 or newer, https://www.python.org|command python3
python3-numpy|NumPy, https://numpy.org|module numpy
python3-torch|PyTorch, https://pytorch.org|module torch
'
runtime_packages=(g++ cmake ninja-build libcli11-dev nlohmann-json3-dev libfmt-dev libstb-dev
    libtomlplusplus-dev zlib1g-dev libopenblas-openmp-dev dataset-fashion-mnist)
test_packages=(libgtest-dev libgmock-dev libbenchmark-dev clang-format python3
    python3-numpy python3-torch)
export runtime_packages test_packages

table_row() { grep -F -m 1 "$1|" <<<"$package_table"; }

# present PACKAGE: whether what it brings is there, wherever it came from.
present() {
    local probe what
    probe=$(table_row "$1" | cut -d '|' -f 3)
    what=${probe#* }
    case ${probe%% *} in
    command) command -v "$what" >/dev/null ;;
    header) echo "#include <$what>" | c++ -E -x c++ - >/dev/null 2>&1 ;;
    # A path, if the linker would find it; else the name as it was asked for.
    library) [[ $(c++ -print-file-name="lib$what.so") == /* ]] ;;
    module) "$(system_python)" -c "import $what" >/dev/null 2>&1 ;;
    data) [[ -n ${VAE_DATA:-} || -d /usr/share/datasets/$what ]] ;;
    *) return 1 ;;
    esac
}

# The python that sees the distribution's packages: another one may come first on PATH.
system_python() {
    if [[ -x /usr/bin/python3 ]]; then echo /usr/bin/python3; else command -v python3; fi
}

# missing PACKAGE...: prints those that are not there, one a line.
missing() {
    local installed=' ' package
    if command -v dpkg-query >/dev/null; then
        # dpkg-query fails when it does not know one of them.
        # shellcheck disable=SC2016  # the format is dpkg-query's, not the shell's
        installed=" $({ dpkg-query -W -f '${Package}=${db:Status-Status}\n' "$@" 2>/dev/null ||
            true; } | sed -n 's/=installed$//p' | tr '\n' ' ') "
    fi
    for package in "$@"; do
        if [[ $installed != *" $package "* ]] && ! present "$package"; then echo "$package"; fi
    done
}

# logged LOG LABEL COMMAND...: runs the command with its output in LOG; shows how far it is on a
# terminal, and the end of the log if it fails.
logged() {
    local log=$1 label=$2 status=0
    shift 2
    mkdir -p "$(dirname "$log")"
    if [[ -t 2 ]]; then
        "$@" </dev/null 2>&1 | tee "$log" | show_progress "$label" || status=$?
    else
        say "$label ..."
        "$@" </dev/null >"$log" 2>&1 || status=$?
    fi
    if ((status != 0)); then
        grep -n -m 5 -E '(^|[^a-z])(error|Error|E):? ' "$log" >&2 || true
        say "--- the end of $log:"
        tail -n 25 "$log" >&2
        say "${0##*/}: error: failed: $label; all of its output is in $log"
    fi
    return "$status"
}

# Keeps one terminal line up to date with what ninja prints as [done/all].
show_progress() {
    local line
    while IFS= read -r line; do
        if [[ $line == \[*/*\]* ]]; then
            printf '\r\033[K%s %s' "$1" "${line%%]*}]" >&2
        else
            printf '\r\033[K%s ...' "$1" >&2
        fi
    done
    printf '\r\033[K' >&2
}

# install_packages PACKAGE...: installs those missing, or says what to install and ends.
install_packages() {
    local lacking=() package as_root=()
    mapfile -t lacking < <(missing "$@")
    ((${#lacking[@]} > 0)) || return 0
    if ! command -v apt-get >/dev/null; then
        say "These are missing; install them with your system's package manager:"
        for package in "${lacking[@]}"; do
            say "  $(table_row "$package" | cut -d '|' -f 2)   (Debian: $package)"
        done
        exit 1
    fi
    if ((EUID != 0)); then
        if ! command -v sudo >/dev/null || { [[ ! -t 0 ]] && ! sudo -n true 2>/dev/null; }; then
            say "These packages are missing; as root, run"
            say "  apt-get install ${lacking[*]}"
            exit 1
        fi
        say "Installing with sudo: ${lacking[*]}"
        sudo -v || die "sudo refused; as root, run: apt-get install ${lacking[*]}"
        as_root=(sudo)
    fi
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q
        -o DPkg::Lock::Timeout=300)
    logged "$root/build/apt-update.log" "Reading the package lists" "${apt[@]}" update ||
        say "Going on with the package lists that are here"
    logged "$root/build/apt-install.log" "Installing ${lacking[*]}" \
        "${apt[@]}" install -y --no-install-recommends "${lacking[@]}" || exit 1
    mapfile -t lacking < <(missing "$@")
    ((${#lacking[@]} == 0)) || die "still missing after installing: ${lacking[*]}"
}

# Puts nvcc on PATH if the toolkit is where NVIDIA's packages put it. Fails if there is none.
find_nvcc() {
    if ! command -v nvcc >/dev/null && [[ -x ${CUDA_HOME:-/usr/local/cuda}/bin/nvcc ]]; then
        PATH="${CUDA_HOME:-/usr/local/cuda}/bin:$PATH"
    fi
    command -v nvcc >/dev/null
}

# configuration KEY: names everything that a configured build folder depends on: the key, this
# folder, the CUDA compiler, and what defines presets and cached variables, which CMake does not
# take over into an existing cache.
configuration() {
    local nvcc
    nvcc=$(command -v nvcc || true)
    printf '%s nvcc=%s sources=%s key=%s\n' "$root" "${nvcc:+$(readlink -f "$nvcc")}" \
        "$(cat "$root"/CMakePresets.json "$root"/CMakeLists.txt "$root"/cmake/*.cmake | cksum)" "$1"
}

# configured PRESET KEY: whether the build folder was configured under the same key, which names
# everything else that CMake's arguments depend on.
configured() {
    local folder=$root/build/$1
    [[ -f $folder/build.ninja && -f $folder/configured &&
        $(<"$folder/configured") == "$(configuration "$2")" ]]
}

# configure PRESET KEY [ARGUMENT...]: runs CMake unless that has been done under the same key.
configure() {
    local preset=$1 key=$2 now
    shift 2
    ! configured "$preset" "$key" || return 0
    now=$(configuration "$key")
    if command -v ccache >/dev/null; then
        export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_CUDA_COMPILER_LAUNCHER=ccache
    fi
    logged "$root/build/$preset-configure.log" "Configuring build/$preset" \
        cmake -S "$root" --preset "$preset" --fresh "$@" || return 1
    printf '%s\n' "$now" >"$root/build/$preset/configured"
}

# build PRESET [TARGET...]
build() {
    local preset=$1
    shift
    logged "$root/build/$preset-build.log" "Building build/$preset" \
        cmake --build "$root/build/$preset" --parallel "$jobs" ${1:+--target "$@"}
}

# named_source OPTIONS...: prints the data that the options of `vae train` name: the last of
# --data; else of --set; else of the file of --config, or of the run that --resume goes on with;
# else the default.
named_source() {
    local data='' setting='' file='' out='' resume=no
    while (($# > 0)); do
        case $1 in
        --*=*)
            set -- "${1%%=*}" "${1#*=}" "${@:2}"
            continue
            ;;
        --data) data=${2:-} ;;
        --set) [[ ${2:-} != data.source=* ]] || setting=${2#*=} ;;
        --config) file=${2:-} ;;
        --out) out=${2:-} ;;
        --resume) resume=yes ;;
        esac
        shift
    done
    [[ $resume == no ]] || file=$out/config.toml
    if [[ -f $file ]]; then
        file=$(sed -nE "s/^[[:space:]]*(data\\.)?source[[:space:]]*=[[:space:]]*(.*)/\\2/p" "$file" |
            tail -n 1)
    else
        file=''
    fi
    data=${data:-${setting:-${file:-fashion-mnist}}}
    data=${data#[\"\']}
    echo "${data%%[\"\']*}"
}

# dead_links FOLDER...: prints what pages in there (*.md) link to and is not there, as PAGE: LINK;
# fails if there is any.
dead_links() {
    local page link dead=no
    while IFS= read -r page; do
        while IFS= read -r link; do
            [[ -e $(dirname "$page")/$link ]] && continue
            printf '%s: %s\n' "$page" "$link"
            dead=yes
        done < <(grep -o -E '\]\([^)#]+' "$page" | cut -c 3- | grep -v -E '^[a-z]+:' | sort -u)
    done < <(find "$@" -name '*.md')
    [[ $dead == no ]]
}

# reported FILE ATTRIBUTE: the number in an attribute of the first element of CTest's report;
# nothing without one.
reported() {
    { grep -o -m 1 -E "[^a-z]$2=\"[0-9]+\"" "$1" || true; } | head -n 1 | tr -dc '0-9'
}
