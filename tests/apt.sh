# shellcheck shell=bash
# Installs Debian packages, for the scripts that source this file. A fresh machine upgrades itself in
# its first minutes, so every lock of apt and dpkg is waited for.

# How long a lock is waited for, in seconds.
apt_patience=600

# apt_run ARGUMENT…: runs apt-get as root. DPkg::Lock::Timeout covers the locks of dpkg alone: apt 2.6
# (Debian 12) does not wait for those of the package lists and of the archives, so a run that fails
# because of a lock is repeated.
apt_run() {
    local as_root=() said
    local until=$((SECONDS + apt_patience))
    if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
    until said=$("${as_root[@]}" env LC_ALL=C DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -o "DPkg::Lock::Timeout=$apt_patience" "$@" 2>&1 >/dev/null); do
        if [[ $said != *"Could not get lock"* ]] || [ "$SECONDS" -ge "$until" ]; then
            echo "apt-get $*: $said" >&2
            return 1
        fi
        sleep 1
    done
}

# apt_install PACKAGE…: installs packages from lists that are up to date.
apt_install() {
    apt_run update && apt_run install -y --no-install-recommends "$@"
}
