# QEMU in a version that is not installed, from Debian's release or its backports. A part of
# run-qemu.sh, which sources it.
#
# apt's configuration stays as it is: options name the sources, and a folder for the lists, for one
# command.
# shellcheck shell=bash

# The second QEMU of the tests, as `bin/` and `usr/`, and why there is none. tests/src/qemus.rs
# looks there.
readonly other_qemu=target/other-qemu
readonly other_qemu_missing=target/other-qemu.missing
# After so many days backports may have a newer one.
readonly other_qemu_days=30
readonly qemu_programs=(qemu-system-x86_64 qemu-img qemu-io qemu-nbd qemu-storage-daemon)

# The version of a program of QEMU, such as 7.2.22; nothing if it does not run.
qemu_version() {
    { "$1" --version 2>/dev/null || true; } | sed -n '1s/^.* \([0-9][0-9]*\.[0-9.]*[0-9]\).*$/\1/p'
}

# Has apt take QEMU from a release, and all else from where it would otherwise. (With
# --target-release it would take everything from there that is not installed yet.)
prefer_qemu_of() { # a release, the folder of `know_backports`
    printf 'Package: qemu-* seabios ipxe-qemu\nPin: release n=%s\nPin-Priority: 990\n' "$1" \
        >"$2/preferences"
}

# Writes a list of sources into a folder and fetches their indices: Debian's release and its
# backports. `from_backports` then has the options for apt's programs, which take QEMU from
# backports, and `backports` the release's name. Without them, `why_not` says why.
from_backports=()
backports=
why_not=
know_backports() { # a folder, by its absolute path
    local folder=$1 codename keys=/usr/share/keyrings/debian-archive-keyring.gpg mirror signed=
    why_not="this is not Debian"
    [[ -e /etc/os-release ]] && have apt-get || return 1
    codename=$(. /etc/os-release && [[ $ID == debian ]] && echo "${VERSION_CODENAME-}") || return 1
    why_not="this release of Debian has no name"
    [[ $codename ]] || return 1
    backports=$codename-backports
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' \
        2>/dev/null | awk -v release="$codename" '
            $2 == release && $1 ~ /\/debian\/?$/ && !uri { uri = $1 }
            END { print uri }')
    [[ ! -e $keys ]] || signed="[signed-by=$keys] "
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    printf "deb $signed${mirror:-http://deb.debian.org/debian} %s main\n" "$codename" "$backports" \
        >"$folder/sources.list"
    from_backports=(
        -o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferences="$folder/preferences" -o Dir::Etc::preferencesparts=/dev/null
        -o Dir::State::lists="$folder/lists" -o Dir::Cache="$folder/cache"
        -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any -o Acquire::http::Timeout=20
    )
    prefer_qemu_of "$backports" "$folder"
    why_not="the lists of $backports cannot be fetched"
    apt-get "${from_backports[@]}" -o Debug::NoLocking=true -q update \
        </dev/null >"$folder/log" 2>&1 || {
        why_not+=" ($(grep -m 1 '^[EW]: ' "$folder/log" || tail -n 1 "$folder/log"))"
        return 1
    }
}

# Fetches the newest QEMU of another version than the one that is installed into a folder.
download_other_qemu() { # a folder, the version that is installed
    local folder=$1 installed=$2 found version release package program
    know_backports "$folder" || return 1
    why_not="Debian and $backports have no other version than $installed"
    # The newest comes first: "qemu-system-x86 | 1:10.0.2+ds-2 | http://deb.debian.org/debian
    # bookworm-backports/main ..."
    found=$(apt-cache "${from_backports[@]}" madison qemu-system-x86 |
        awk -F ' *[|] *' -v installed="$installed" '
        function series(version) {
            sub(/^[0-9]+:/, "", version)
            return match(version, /^[0-9]+\.[0-9]+/) ? substr(version, 1, RLENGTH) : version
        }
        !found && series($2) != series(installed) {
            found = $2
            gsub(/^[^ ]* |\/.*/, "", $3)
            print found, $3
        }')
    [[ $found ]] || return 1
    version=${found% *} release=${found#* }
    prefer_qemu_of "$release" "$folder"
    # Without the packages of the QEMU that is installed, nothing can exclude this one. What else it
    # needs comes with it.
    awk 'BEGIN { RS = ""; ORS = "\n\n" } !/^Package: (qemu-|seabios\n|ipxe-qemu\n)/' \
        /var/lib/dpkg/status >"$folder/status"
    why_not="QEMU $version cannot be fetched"
    apt-get "${from_backports[@]}" -o Debug::NoLocking=true \
        -o Dir::State::status="$folder/status" -q -y --no-install-recommends --download-only \
        install "qemu-system-x86=$version" "qemu-utils=$version" </dev/null >"$folder/log" 2>&1 || {
        why_not+=" ($(grep -m 1 '^E: ' "$folder/log" || tail -n 1 "$folder/log"))"
        return 1
    }
    why_not="QEMU $version cannot be unpacked"
    mkdir -p "$folder/qemu/bin"
    for package in "$folder"/cache/archives/*.deb; do
        dpkg-deb --extract "$package" "$folder/qemu" || return 1
    done
    for program in "${qemu_programs[@]}"; do
        cat >"$folder/qemu/bin/$program" <<'END_OF_PROGRAM' || return 1
#!/bin/sh
# This QEMU, with the libraries that came with it. It finds its firmware by its own place.
here=$(dirname "$(readlink -f "$0")")/..
libraries=$here/usr/lib/x86_64-linux-gnu:$here/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
exec "$here/usr/bin/$(basename "$0")" "$@"
END_OF_PROGRAM
        chmod 755 "$folder/qemu/bin/$program"
        why_not="$program of QEMU $version does not run here"
        [[ $(qemu_version "$folder/qemu/bin/$program") ]] || return 1
    done
}

# Puts a second QEMU beside the one that is installed, for the tests: the newest, or where the
# newest is installed, the one before. Where that fails, the tests do without, and
# `say_tested_qemus` says so.
set_up_other_qemu() {
    local installed other folder
    installed=$(qemu_version qemu-system-x86_64)
    other=$(qemu_version "$other_qemu/bin/qemu-system-x86_64")
    if [[ $other && ${other%.*} != "${installed%.*}" &&
        $(find "$other_qemu" -prune -mtime "-$other_qemu_days") ]]; then
        return
    fi
    say "run-qemu.sh: fetching another QEMU than $installed, for the tests, into $other_qemu"
    mkdir -p target
    folder=$(mktemp -d "$PWD/$other_qemu.XXXXXX")
    if download_other_qemu "$folder" "$installed"; then
        rm -rf "$other_qemu" "$other_qemu_missing"
        mv "$folder/qemu" "$other_qemu"
        touch "$other_qemu"
    elif [[ ! $other || ${other%.*} == "${installed%.*}" ]]; then
        rm -rf "$other_qemu"
        printf '%s\n' "$why_not" >"$other_qemu_missing"
    fi
    rm -rf "$folder"
}

# The last line of a run of the tests: under which QEMUs they ran.
say_tested_qemus() {
    local installed other
    installed=$(qemu_version qemu-system-x86_64)
    other=$(qemu_version "$other_qemu/bin/qemu-system-x86_64")
    if [[ $other ]]; then
        say "run-qemu.sh: tested under QEMU $installed, and where that may matter under $other"
    else
        say "run-qemu.sh: tested under QEMU $installed alone, NOT under a newer or an older one:" \
            "$(cat "$other_qemu_missing" 2>/dev/null || echo "there is none in $other_qemu")"
    fi
}
