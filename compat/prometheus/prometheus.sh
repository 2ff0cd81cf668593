# Sourced by run and available.

# Puts `prometheus` and `promtool` on the PATH: those that are installed, else Debian's, unpacked below CACHE once. The
# package is not installed, because that starts a service.
with_prometheus() {
    local home=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anabranch/compat}/prometheus-debian
    if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
        return
    fi
    mkdir -p "$home"
    (
        flock 9
        [ -e "$home/complete" ] && exit 0
        cd "$home"
        apt-get download -q prometheus >&2
        dpkg-deb --extract prometheus_*.deb . && rm prometheus_*.deb
        touch complete
    ) 9>"$home.lock" || return 1
    export PATH=$home/usr/bin:$PATH
}

# Says what keeps `with_prometheus` from working here.
prometheus_lacks() {
    if command -v prometheus >/dev/null && command -v promtool >/dev/null; then
        return
    fi
    apt-get download --print-uris prometheus >/dev/null 2>&1 && command -v dpkg-deb >/dev/null ||
        { echo "prometheus is not installed and Debian's package cannot be fetched"; return 1; }
}
