#!/usr/bin/env bash
# The README's two commands on a Debian 12 that has nothing but its base: what run-qemu.sh forgets
# to install shows here.
#
# Needs root, debootstrap, a network, and some 6 GB below $TMPDIR (or /var/tmp). Takes a copy of
# this checkout, changes and all, into a new chroot and there runs ./run-qemu.sh until it serves, as
# a user with sudo; Ctrl-C; and ./run-qemu.sh test, as root. A qemu-utils of Debian's backports is
# in the way of Debian's QEMU, too. The chroot gets this machine's apt sources, keys and proxies,
# its own certificate authorities and its cargo registry settings.
#
# --keep leaves the chroot behind, for a look.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

die() { printf 'fresh-debian: %s\n' "$*" >&2; exit 1; }
die_with() { tail -n 40 "$1" >&2; die "$2"; } # the end of a log, and why
step() { printf '\n== fresh-debian: %s (%d s)\n' "$*" "$SECONDS" >&2; }

((EUID == 0)) || die "this must be root, to make a chroot"
command -v debootstrap >/dev/null || die "debootstrap is missing: apt-get install debootstrap"

# Mounts and processes of its own: they end with this script, however it ends.
if [[ ${UMBRA_FRESH_DEBIAN-} != inside ]]; then
    keep=; [[ ${1-} != --keep ]] || keep=yes
    root=$(mktemp -d "${TMPDIR:-/var/tmp}/umbra-fresh-debian.XXXXXX")
    chmod 755 "$root"
    clean_up() {
        if [[ $keep ]]; then
            echo "fresh-debian: kept $root" >&2
        else
            rm -rf --one-file-system "$root"
        fi
    }
    trap clean_up EXIT
    UMBRA_FRESH_DEBIAN=inside unshare --mount --mount-proc --pid --fork --kill-child "$0" "$root"
    exit
fi
root=$1

# --- A base system, from where this machine gets its packages.

mirror=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "bookworm" && $1 ~ /\/debian\/?$/ { print $1; exit }')
proxy=
eval "$(apt-config shell proxy Acquire::http::Proxy 2>/dev/null || true)"
[[ ! $proxy || $proxy == DIRECT ]] || export http_proxy=$proxy

[[ $mirror ]] ||
    die "apt's sources name no mirror of Debian 12 (bookworm); run apt-get update first"

step "a base system from $mirror"
debootstrap --variant=minbase --include=sudo bookworm "$root" "$mirror" >"$root.log" 2>&1 ||
    die_with "$root.log" "debootstrap failed"
rm -f "$root.log"

copy() { # a file or folder of this machine to the same place
    [[ -e $1 ]] || return 0
    mkdir -p "$root$(dirname "$1")"
    cp -aT "$1" "$root$1"
}
if apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' |
    grep -qx bookworm-security; then
    rm -f "$root/etc/apt/sources.list"
    for file in sources.list sources.list.d trusted.gpg trusted.gpg.d keyrings \
        auth.conf auth.conf.d preferences.d; do
        copy "/etc/apt/$file"
    done
    copy /usr/share/keyrings
else
    cat >"$root/etc/apt/sources.list" <<END
deb $mirror bookworm main
deb ${mirror%/debian*}/debian-security bookworm-security main
END
fi
# Of its settings only how to fetch: the rest may name programs that a base system has not.
apt-config dump | grep -E '^Acquire::(https?|ftp|Retries|ForceIPv4)' \
    >"$root/etc/apt/apt.conf.d/01fetch" || true
for file in /etc/resolv.conf /etc/hosts; do
    cat "$file" >"$root$file"
done
copy /usr/local/share/ca-certificates
cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
chroot "$root" useradd --create-home --shell /bin/bash newcomer
echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/newcomer"
for home in root home/newcomer; do
    for file in config.toml config credentials.toml; do
        if [[ -e $cargo_home/$file ]]; then
            install -D -m 600 "$cargo_home/$file" "$root/$home/.cargo/$file"
        fi
    done
done
chroot "$root" chown -R newcomer: /home/newcomer

step "a copy of the checkout"
mkdir "$root/srv/umbra"
git ls-files -z --cached --others --exclude-standard |
    tar -c --null --ignore-failed-read -T - | tar -x -C "$root/srv/umbra"
chroot "$root" chown -R newcomer: /srv/umbra

mount -t proc proc "$root/proc"
mount --rbind --make-rslave /sys "$root/sys"
mount --rbind --make-rslave /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"

# --- The two commands.

environment=(PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 CI=true)
while IFS= read -r -d '' variable; do
    case ${variable%%=*} in
    *_proxy | *_PROXY | CARGO_HTTP_* | CARGO_NET_* | CARGO_REGISTRIES_* | CARGO_REGISTRY_* | \
        CARGO_SOURCE_*)
        environment+=("$variable")
        ;;
    esac
done < <(env -0)
# A file that cargo is told to trust must be there too.
[[ ! ${CARGO_HTTP_CAINFO-} ]] || copy "$CARGO_HTTP_CAINFO"
as() { # a user and a command
    local home
    home=$(chroot "$root" getent passwd "$1" | cut -d: -f6)
    chroot --userspec="$1" "$root" env -i HOME="$home" "${environment[@]}" \
        bash -c "cd /srv/umbra && $2" </dev/null
}

step "who may not install is told what is missing"
said=$(as nobody ./run-qemu.sh 2>&1) &&
    die "run-qemu.sh succeeded as nobody, with nothing installed"
[[ $said == *"apt-get install"*qemu-system-x86* ]] || die "that is not what is missing: $said"

step "a qemu-utils that excludes Debian's QEMU, of backports whose source is gone again"
utils() { chroot "$root" dpkg-query -W -f '${Version}' qemu-utils; }
sources=$root/etc/apt/sources.list.d/backports.list
echo "deb $mirror bookworm-backports main" >"$sources"
chroot "$root" sh -c 'apt-get -q update &&
    DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends \
        -t bookworm-backports qemu-utils' >"$root.log" 2>&1 ||
    die_with "$root.log" "qemu-utils of backports cannot be installed"
rm -f "$root.log" "$sources"
utils_before=$(utils)
configuration() { (cd "$root/etc/apt" && find . -type f -exec sha256sum {} + | sort); }
configuration_before=$(configuration)

step "./run-qemu.sh, with sudo"
console=$root/root/console.log
# Not in the background of a shell, which would make it deaf to Ctrl-C.
as newcomer 'exec setsid env --default-signal=INT ./run-qemu.sh' >"$console" 2>&1 &
chroot_pid=$!
serves() {
    as newcomer 'target/release/umbra status --json' 2>/dev/null | grep -Eq '"ready": ?true'
}
until serves; do
    kill -0 "$chroot_pid" 2>/dev/null || die_with "$console" "run-qemu.sh ended before it served"
    ((SECONDS < 3600)) || die_with "$console" "run-qemu.sh does not serve after an hour"
    sleep 2
done
step "it serves; Ctrl-C"
as newcomer 'target/release/umbra df'
kill -INT "$(pgrep -of 'umbra up')"
wait "$chroot_pid" || die_with "$console" "run-qemu.sh ended with status $? after Ctrl-C"
! pgrep -l 'qemu-system' >&2 || die "these outlived it"
[[ $(utils) == "$utils_before" ]] || die "qemu-utils was $utils_before, and is $(utils)"
[[ $(configuration) == "$configuration_before" ]] || die "the configuration of apt has changed"

step "it repeats nothing"
as newcomer './run-qemu.sh setup'
before=$SECONDS
as newcomer './run-qemu.sh setup'
((SECONDS - before <= 3)) || die "setting up what is set up took $((SECONDS - before)) s"

step "./run-qemu.sh test, as root"
as root './run-qemu.sh test' 2>&1 | tee "$root/root/test.log"
# Under the QEMU of backports that is installed, and under Debian's.
tail -n 1 "$root/root/test.log" | grep -q 'tested under QEMU .* under ' ||
    die "the tests had one QEMU only"

step "passed"
