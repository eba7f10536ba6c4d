#!/usr/bin/env bash
# Umbra's one command: sets up what is missing, builds, boots and serves. See --help.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# mke2fs and its kind, which are not on every user's path.
export PATH="$PATH:/usr/sbin:/sbin"

usage() {
    cat <<'END'
Usage: ./run-qemu.sh [OPTION...]   set up what is missing, build, boot, serve; shows the console
       ./run-qemu.sh test          set up what is missing, then run all tests
       ./run-qemu.sh check         set up what is missing, then run all lints
       ./run-qemu.sh setup         only set up what is missing
       ./run-qemu.sh toolchain     say which toolchain builds for the bare machine
       ./run-qemu.sh --help

OPTIONs are those of `umbra up`, for example --nvdimm-size 4G or --memory 128M.
Ctrl-C shuts the guest down cleanly. All other verbs: cargo xtask --help

Set-up installs Debian packages (as root or with sudo). Where a qemu-utils that is installed is too
new for apt's QEMU, QEMU comes from Debian's backports, as that qemu-utils did; only if it cannot be
had there, qemu-utils is replaced by apt's. The tests run under a second QEMU too, which is put into
target/other-qemu. Nothing else changes, apt's configuration neither. Where set-up may not install,
it says what is missing and exits with status 1.
END
}

# What this needs of a compiler; `rust-version` in Cargo.toml.
readonly oldest_rust=95
readonly target=x86_64-unknown-none

have() { command -v "$1" >/dev/null 2>&1; }
say() { printf '%s\n' "$*" >&2; }

# shellcheck source=.ci/qemu.sh
source .ci/qemu.sh

# The minor version of a rustc 1.x that runs; 0 if there is none.
rust_minor() {
    local version
    version=$("$1" --version 2>/dev/null) && [[ $version =~ ^rustc\ 1\.([0-9]+)\. ]] &&
        echo "${BASH_REMATCH[1]}" || echo 0
}

# Whether a compiler and its cargo can build for the host.
builds_host() { have "$1" && have "$2" && (($(rust_minor "$1") >= oldest_rust)); }

# A linker of the system for the bare machine: in `PATH`, or Debian's newest.
system_linker() {
    local linkers
    if have ld.lld; then
        command -v ld.lld
    else
        mapfile -t linkers < <(compgen -G '/usr/lib/llvm-*/bin/ld.lld' | sort -V)
        ((${#linkers[@]})) && printf '%s\n' "${linkers[-1]}"
    fi
}

# Why a toolchain cannot build for the bare machine, too. If it can, what there is to say of it.
why_unfit=
bare_version=
bare_linker=
bare_build_std=
builds_bare() { # rustc, cargo
    local rustlib
    why_unfit="there is no cargo"
    have "$2" || return
    why_unfit="there is no rustc that runs"
    bare_version=$("$1" --version 2>/dev/null) && [[ $bare_version ]] || return
    why_unfit="$bare_version is older than 1.$oldest_rust"
    builds_host "$1" "$2" || return
    bare_version=1.$(rust_minor "$1")
    rustlib=$("$1" --print sysroot)/lib/rustlib
    why_unfit="it has neither the target nor rust-src"
    bare_build_std=no
    [[ -d $rustlib/$target/lib ]] || bare_build_std=yes
    [[ $bare_build_std == no || -d $rustlib/src/rust/library/core ]] || return
    why_unfit="it has no rust-lld, and there is no ld.lld"
    bare_linker=
    compgen -G "$rustlib/*/bin/rust-lld" >/dev/null || bare_linker=$(system_linker)
}

# Says which toolchain builds for the bare machine: the active one if it can, else Debian's. (A
# compiler of Debian's has to be named to its cargo, which would take the first one in `PATH`.)
# host/src/toolchain.rs reads this.
say_toolchain() { # rustc and cargo that are active, rustc and cargo of Debian
    local cargo rustc why_not_active
    if builds_bare "$1" "$2"; then
        cargo=$2 rustc=
    else
        why_not_active=$why_unfit
        cargo=$4 rustc=$3
        if ! builds_bare "$3" "$4"; then
            say "no Rust toolchain here can build for $target; the active one: $why_not_active;" \
                "Debian's: $why_unfit. Either give the active one the target (rustup target add" \
                "$target) or install Debian's (apt-get install rustc-web cargo-web rust-web-src" \
                "lld-19)"
            return 1
        fi
    fi
    printf '%s\n' "cargo=$cargo" "rustc=$rustc" "version=$bare_version" "linker=$bare_linker" \
        "build_std=$bare_build_std"
}
readonly toolchains=(rustc cargo /usr/bin/rustc /usr/bin/cargo)

# Whether a cargo has these subcommands: beside it, or in `PATH` if it is the active one.
has_subcommands() { # a cargo, and subcommands
    local subcommand
    for subcommand in "${@:2}"; do
        if [[ $1 == /* ]]; then
            [[ -x $1-$subcommand ]] || return
        else
            "$1" "$subcommand" --version >/dev/null 2>&1 || return
        fi
    done
}

packages=()
# What for: `up`, `test` or `check`.
wanted=
find_missing_packages() {
    packages=()
    wanted=$1
    have qemu-system-x86_64 || packages+=(qemu-system-x86)
    have cc || packages+=(gcc libc6-dev)
    if ! builds_bare rustc cargo && ! builds_bare /usr/bin/rustc /usr/bin/cargo; then
        packages+=(rustc-web cargo-web rust-web-src lld-19)
    elif ! builds_host rustc cargo && ! builds_host /usr/bin/rustc /usr/bin/cargo; then
        packages+=(rustc-web cargo-web)
    fi
    if [[ $1 == check ]]; then
        have python3 || packages+=(python3)
        choose_cargo
        local bare=/usr/bin/cargo
        if builds_bare rustc cargo; then bare=cargo; fi
        has_subcommands "${cargo[-1]}" fmt clippy || packages+=(rustfmt-web rust-web-clippy)
        has_subcommands "$bare" clippy || packages+=(rust-web-clippy)
    fi
    # Cargo fetches the crates over https.
    [[ -e /etc/ssl/certs/ca-certificates.crt ]] || packages+=(ca-certificates)
    if [[ $1 == test ]]; then
        have mke2fs && have e2fsck || packages+=(e2fsprogs)
        # Clients of NBD.
        have nbdinfo && have nbdcopy || packages+=(libnbd-bin)
        /usr/bin/python3 -c 'import nbd' 2>/dev/null || packages+=(python3-libnbd)
        have qemu-img && have qemu-io || packages+=(qemu-utils)
        have fio || packages+=(fio)
        # A Linux guest, which is one more.
        compgen -G '/boot/vmlinuz-*-amd64' >/dev/null || packages+=(linux-image-amd64)
        have busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1 || packages+=(busybox-static)
        have cpio || packages+=(cpio)
        have modprobe || packages+=(kmod)
        have nbd-client || packages+=(nbd-client)
    fi
}

# What else would have to be installed, and in which version, for apt to install the packages.
aligned=()

refuse() {
    local command=(apt-get install --no-install-recommends)
    ((${#aligned[@]} == 0)) || command+=(--allow-downgrades)
    say "run-qemu.sh: $*."
    say "Missing here, by the names of Debian's packages: ${packages[*]}"
    say "On Debian 12, as root:  ${command[*]} ${packages[*]}${aligned[*]:+ ${aligned[*]}}"
    ((${#aligned[@]} == 0)) ||
        say "To keep the qemu-utils that is installed, take qemu-system-x86 from where that came" \
            "from (backports) first."
    if [[ " ${packages[*]} " == *" rustc-web "* ]]; then
        say "Elsewhere, instead of the Rust packages: rustup with Rust 1.$oldest_rust or later," \
            "and rustup target add $target"
    fi
    exit 1
}

# Finds out whether a qemu-utils that is much newer than the emulator that apt has (from backports
# whose source is gone, say) excludes it: `aligned` is then the qemu-utils that does not.
align_qemu() {
    aligned=()
    if apt-get -s install --no-remove --no-install-recommends "${packages[@]}" \
        >/dev/null 2>&1; then
        return
    fi
    [[ " ${packages[*]} " == *" qemu-system-x86 "* ]] || return 0
    local emulator utils
    emulator=$(LC_ALL=C apt-cache policy qemu-system-x86 | sed -n 's/^ *Candidate: //p')
    utils=$(dpkg-query -W -f '${db:Status-Status} ${Version}' qemu-utils 2>/dev/null) || return 0
    [[ $emulator == [0-9]* && $utils == installed\ * ]] || return 0
    if dpkg --compare-versions "${utils#* }" gt "$emulator"; then
        aligned=("qemu-utils=$emulator")
    fi
}

# Installs an emulator from backports, which a qemu-utils from there does not exclude.
install_newer_qemu() { # the command apt-get
    local folder status=0
    folder=$(mktemp -d)
    if know_backports "$folder"; then
        say "run-qemu.sh: the qemu-utils that is installed excludes apt's QEMU;" \
            "taking QEMU from $backports"
        "$@" "${from_backports[@]}" install --no-remove --no-install-recommends qemu-system-x86 \
            </dev/null >&2 || status=$?
    else
        say "run-qemu.sh: $why_not"
        status=1
    fi
    # The lists in it may be root's.
    "${as_root[@]}" rm -rf "$folder"
    return "$status"
}

install_packages() {
    local as_root=()
    [[ -e /etc/debian_version ]] && have apt-get ||
        refuse "this is not Debian, so nothing can be installed from here"
    align_qemu
    if ((EUID != 0)); then
        have sudo || refuse "packages are missing, and this is neither root nor is there sudo"
        as_root=(sudo)
        # Without a terminal nobody could type a password.
        [[ -t 0 ]] || as_root=(sudo -n)
        "${as_root[@]}" true ||
            refuse "packages are missing, and sudo does not let this user install them"
    fi
    say "run-qemu.sh: installing ${packages[*]}"
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y)
    # One source that cannot be reached need not be the one that has these packages.
    "${apt[@]}" update </dev/null >&2 ||
        say "run-qemu.sh: apt-get update failed; going on with the lists that are there"
    align_qemu
    local options=(--no-install-recommends)
    if ((${#aligned[@]})) && install_newer_qemu "${apt[@]}"; then
        aligned=()
        hash -r
        find_missing_packages "$wanted"
    elif ((${#aligned[@]})); then
        say "run-qemu.sh: the qemu-utils that is installed excludes apt's QEMU, and there is no" \
            "newer one; qemu-utils is replaced: ${aligned[*]}"
        options+=(--allow-downgrades)
    fi
    # --no-remove: whatever else of the machine is in the way stays, and is named.
    "${apt[@]}" install --no-remove "${options[@]}" "${packages[@]}" "${aligned[@]}" \
        </dev/null >&2 ||
        refuse "apt-get could not install everything (its reason is above)"
    hash -r
}

# Cargo for the host's programs: the active one, else Debian's. For lints one that has them.
cargo=()
choose_cargo() {
    if builds_host rustc cargo && { [[ $wanted != check ]] || has_subcommands cargo fmt clippy ||
        ! has_subcommands /usr/bin/cargo fmt clippy; }; then
        cargo=(cargo)
    else
        cargo=(env -u RUSTUP_TOOLCHAIN RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc /usr/bin/cargo)
    fi
}

set_up() {
    find_missing_packages "$1"
    if ((${#packages[@]})); then
        install_packages
        find_missing_packages "$1"
        ((${#packages[@]} == 0)) ||
            refuse "what apt-get installed is not enough (for Rust, are bookworm-security's" \
                "packages in apt's sources?)"
    fi
    choose_cargo
    [[ $1 != test ]] || set_up_other_qemu
}

main() {
    case ${1-} in
    -h | --help)
        usage
        ;;
    setup)
        set_up test
        ;;
    test)
        shift
        set_up test
        trap say_tested_qemus EXIT
        "${cargo[@]}" xtask test "$@"
        ;;
    check)
        set_up check
        "${cargo[@]}" xtask check
        ;;
    toolchain)
        say_toolchain "${toolchains[@]}"
        ;;
    *)
        set_up up
        exec "${cargo[@]}" run --release --package umbra -- up "$@"
        ;;
    esac
}

# Tests take the functions and call them themselves.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main "$@"
fi
