# Sourced by the other scripts: makes .venv with this package in it, once for each state of the sources.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
PYTHON_OF_VENV="$PWD/.venv/bin/python"

say() { printf '%s\n' "$*" >&2; }

# Every Python that is new enough, the best first: $PYTHON, then those that are one piece with their library, as Debian's
# is. One that loads libpython as a shared library takes a sixth more processor time for a call (845 us, not 705).
find_pythons() {
    local candidate shared
    for shared in any 0 1; do
        for candidate in ${PYTHON:-} python3.14 python3.13 python3.12 python3.11 python3 /usr/bin/python3; do
            if [ "$shared" = any ] && [ "$candidate" != "${PYTHON:-}" ]; then continue; fi
            if "$candidate" -c 'import sys
with open("/proc/self/maps") as maps:
    shared = str(int("/libpython3" in maps.read()))
sys.exit(sys.version_info < (3, 11) or sys.argv[1] not in ("any", shared))' "$shared" 2>/dev/null; then
                command -v "$candidate"
            fi
        done
    done
}

make_venv() {
    local python pythons
    pythons=$(find_pythons)
    if [ -z "$pythons" ]; then
        say "sipserver needs Python 3.11 or later; set PYTHON to one."
        return 1
    fi
    for python in $pythons; do
        rm -rf .venv
        if "$python" -m venv .venv >/dev/null 2>&1; then
            say "Made .venv with $("$python" --version), $python"
            renew_pip
            return
        fi
        # Debian keeps what venv needs in a package of its own.
        if [[ $python == /usr/bin/* ]] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            make_packages "$(basename "$(readlink -f "$python")")-venv"
            if "$python" -m venv .venv >/dev/null 2>&1; then
                renew_pip
                return
            fi
        fi
    done
    rm -rf .venv
    say "Python cannot make a virtual environment: on Debian run 'apt install python3-venv' as root."
    return 1
}

# The pip that comes with a Python of some years takes half as long again; where no other is to be had it does.
renew_pip() {
    "$PYTHON_OF_VENV" -m pip install --quiet --disable-pip-version-check --upgrade pip 2>/dev/null || true
}

# A .venv whose Python runs, perhaps with nothing in it.
ensure_venv() {
    "$PYTHON_OF_VENV" -c '' 2>/dev/null || make_venv
}

# make_environment EXTRA: what serving needs (''), or the tests or the benchmark as well (test, bench), with the package
# compiled where that can be. Without a change since the last time it takes no network and no time.
make_environment() {
    make_tools "$1" && make_package
}

# make_tools EXTRA: .venv with what the package needs, which is itself not in it yet, once for each state of pyproject.toml.
# What is imported is compiled to bytecode then; doing that to all of it takes a fifth of the time.
make_tools() {
    local extra=$1 wanted
    ensure_venv || return 1
    if has_tools "$extra"; then return; fi
    say "Installing what sipserver${extra:+ with the tools of its tests} needs into .venv"
    # shellcheck disable=SC2086  # no extra is no argument
    wanted=$("$PYTHON_OF_VENV" scripts/requirements.py $extra) || return 1
    "$PYTHON_OF_VENV" -m pip install --quiet --disable-pip-version-check --no-compile --requirement /dev/stdin <<<"$wanted" ||
        return 1
    tools_state >".venv/.tools-${extra:-run}"
}

# What the tools depend on.
tools_state() {
    printf '%s\n' "$PWD $(cksum <pyproject.toml)"
}

# has_tools EXTRA: whether make_tools has nothing to do.
has_tools() {
    local each
    # What the tests or the benchmark need includes what serving needs.
    for each in ${1:-run test bench}; do
        if [ "$(cat ".venv/.tools-$each" 2>/dev/null)" = "$(tools_state)" ]; then return; fi
    done
    return 1
}

# make_package: the package itself, once for each state of its sources. SIPSERVER_PURE=1 leaves the compiled modules out.
make_package() {
    local folder
    if is_package_made; then return; fi
    if [ "${SIPSERVER_PURE:-}" != 1 ]; then make_compiler; fi
    folder=$(mktemp -d)
    build_package "$folder" && install_package "$folder"
    local failed=$?
    rm -rf "$folder"
    return "$failed"
}

# build_package FOLDER: its wheel. Needs nothing that is in .venv, so that can be filled at the same time.
build_package() {
    if [ "${SIPSERVER_PURE:-}" != 1 ]; then say "Compiling sipserver, which takes some minutes"; fi
    "$PYTHON_OF_VENV" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$1" .
}

# install_package FOLDER: what build_package made.
install_package() {
    "$PYTHON_OF_VENV" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$1"/*.whl || return 1
    if [ "${SIPSERVER_PURE:-}" != 1 ] && ! is_compiled; then
        say "The package works, but is not compiled (a C compiler and Python.h are needed): calls cost more."
    fi
    package_state >.venv/.package
}

# What the installed package depends on.
package_state() {
    printf '%s\n' "$PWD ${SIPSERVER_PURE:-} ${SIPSERVER_OPTIMIZE:-} $(find pyproject.toml scripts/build_hook.py sipserver -name '*.py' -o -name '*.toml' |
        LC_ALL=C sort | xargs cat | cksum)"
}

# Whether the package is installed as it would be made now.
is_package_made() {
    [ "$(cat .venv/.package 2>/dev/null)" = "$(package_state)" ]
}

# Whether the installed package has its compiled modules.
is_compiled() {
    "$PYTHON_OF_VENV" -P -c 'import sys, sipserver.sip.message as module
sys.exit(not module.__file__.endswith(".so"))'
}

# A C compiler and Python's headers, where they can be had; without them the package works uncompiled.
make_compiler() {
    local wanted=()
    command -v gcc >/dev/null || wanted+=(gcc libc6-dev)
    "$PYTHON_OF_VENV" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
        wanted+=("$(basename "$(readlink -f "$PYTHON_OF_VENV")")-dev")
    if [ "${#wanted[@]}" -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        make_packages "${wanted[@]}"
    fi
}

# make_packages PACKAGE...: Debian's packages, where that is possible; never a failure.
make_packages() {
    say "Installing $*"
    export DEBIAN_FRONTEND=noninteractive
    # Another one may be at it, and others may want the network and the processors meanwhile.
    local install=(timeout 300 apt-get install -y -qq --no-install-recommends -o DPkg::Lock::Timeout=240)
    "${install[@]}" "$@" >/dev/null 2>&1 ||
        { timeout 60 apt-get update -qq && "${install[@]}" "$@"; } >/dev/null 2>&1 || say "Could not install $*"
}

# make_peers PROGRAM=PACKAGE...: Debian's packages of real endpoints, where that is possible; never a failure.
make_peers() {
    local pair missing=()
    for pair in "$@"; do
        command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}")
    done
    if [ "${#missing[@]}" = 0 ]; then return; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        make_packages "${missing[@]}"
    else
        say "Not installed, and only root on Debian can do it here: ${missing[*]}"
    fi
}

# What Kamailio needs for being measured, where it is there.
make_kamailio_modules() {
    if command -v kamailio >/dev/null && ! compgen -G '/usr/lib/*/kamailio/modules/db_sqlite.so' >/dev/null; then
        if [ "$(id -u)" = 0 ]; then make_packages kamailio-sqlite-modules kamailio-extra-modules; fi
    fi
}
