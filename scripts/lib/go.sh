# For scripts/controlplane and scripts/tool, which build programs of other projects from source, through the Go module
# proxy, at the versions of a go.mod and go.sum of ours, and keep them under ~/.cache/basekeeper.
#
# Sourced from the project's root. Before `build_programs` the script sets `bin`, where the programs belong, and
# `programs`, their names; `package_of NAME` says what to build. Where this host has no Go that is new enough, the one of
# requirements/go.txt is used, and nothing of the host is changed.
# shellcheck shell=bash

cache=${XDG_CACHE_HOME:-$HOME/.cache}/basekeeper
me=$(basename "$0")

say() { printf '%s\n' "$*" >&2; }
fail() {
    printf '%s: %s\n' "$me" "$1" >&2
    exit "${2:-1}"
}

fingerprint_of() { # MODULE: another one for every change of what is built
    cat "$1"/* | sha256sum | cut -c1-12
}

missing=()
is_complete() {
    local program
    missing=()
    for program in "${programs[@]}"; do
        [ -x "$bin/$program" ] || missing+=("$program")
    done
    [ ${#missing[@]} -eq 0 ]
}

# --- one at a time ---------------------------------------------------------------------------------------------

# All scripts share a lock: a build takes all processors and some gigabytes.
build=
locked=no
take_lock() {
    [ $locked = no ] || return 0
    mkdir -p "$cache/go" || fail "cannot write to $cache"
    exec 9>"$cache/.build.lock"
    if ! flock --nonblock 9; then
        say "Another run is building; waiting for it."
        flock 9
    fi
    locked=yes
    # Whoever holds the lock is alone: what lies here was left behind by a run that was killed.
    rm -rf "$cache"/.build.?????? "$cache"/go/.build.*
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
}

clean_up() {
    local child
    for child in $(jobs -p); do kill "$child" 2>/dev/null || true; done
    if [ -n "$build" ]; then rm -rf "$build"; fi
}

# --- a Go ------------------------------------------------------------------------------------------------------

# GOTOOLCHAIN=local: what builds is the Go found here or the locked one, never a third that Go fetches by itself.
export GOTOOLCHAIN=local CGO_ENABLED=0
is_new_enough() { # WANTED
    local found
    found=$(go env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "$1" "${found#go}" | sort -V | head -1)" = "$1" ]
}

install_go() { # DIRECTORY WANTED: whole or not at all
    local python=.venv/bin/python
    say "Installing a Go tool chain into $1: this host has none from $2 on."
    build=$(mktemp -d "$cache/go/.build.XXXXXX")
    if ! [ -x $python ]; then
        python3 -m venv "$build/venv" >&2 || fail "no Go from $2 on, and no Python to install one: run scripts/setup test"
        python=$build/venv/bin/python
    fi
    "$python" -m pip install --quiet --disable-pip-version-check --progress-bar off --no-compile --target "$build/tools" \
        --require-hashes -r requirements/go.txt >&2 || fail "cannot install requirements/go.txt: pip says why above"
    mv "$build/tools" "$1"
    rm -rf "$build"
    build=
}

find_go() { # MODULE
    local wanted tools
    wanted=$(awk '$1 == "go" { print $2; exit }' "$1/go.mod")
    PATH=$PATH:/usr/local/go/bin
    if is_new_enough "$wanted"; then return; fi
    tools=$cache/go/$(sha256sum requirements/go.txt | cut -c1-12)
    if ! [ -x "$tools/go/bin/go" ]; then
        take_lock
        [ -x "$tools/go/bin/go" ] || install_go "$tools" "$wanted"
    fi
    PATH=$tools/go/bin:$PATH
    unset GOROOT
    is_new_enough "$wanted" || fail "requirements/go.txt brings no Go from $wanted on for this machine; install one by hand"
}

# --- the programs ----------------------------------------------------------------------------------------------

build_programs() { # MODULE TITLE [OPTION...]: what is missing; the options are go build's
    local module=$1 title=$2 program
    shift 2
    if is_complete; then return; fi
    take_lock
    if is_complete; then return; fi
    find_go "$module"
    say "Building $title from source (${missing[*]})."
    build=$(mktemp -d "$cache/.build.XXXXXX")
    for program in "${missing[@]}"; do
        say "  $program"
        # In the background, because bash hears a signal at once only while it waits.
        go -C "$module" build -mod=readonly -trimpath -buildvcs=false "$@" \
            -o "$build/$program" "$(package_of "$program")" 2>"$build/log" &
        if ! wait $!; then
            grep -v '^go: downloading ' "$build/log" | tail -20 >&2 || true
            fail "$program of $title could not be built: Go says why above"
        fi
        # Whole or not at all: a build that was interrupted leaves no half program under the final name.
        mkdir -p "$bin"
        mv "$build/$program" "$bin/$program"
    done
    rm -rf "$build"
    build=
}
