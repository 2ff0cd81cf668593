# Sourced by the Python clients' `run`.
#
# venv FOLDER: makes, once for each set of pins and each Python, a virtual environment below CACHE with
# what FOLDER/requirements.txt names, and prints the path of its python. Two runs at once share one build.

venv() {
    local folder=$1 name key home
    name=$(basename "$folder")
    key=$({ python3 --version; cat "$folder/requirements.txt"; } | sha256sum | cut -c1-16)
    home=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anabranch/compat}/$name-$key
    mkdir -p "$(dirname "$home")"
    (
        flock 9
        [ -e "$home/complete" ] && exit 0
        rm -rf "$home"
        python3 -m venv "$home" >&2
        # Without dependency resolution the pins are the whole truth.
        "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
            --requirement "$folder/requirements.txt" >&2
        touch "$home/complete"
    ) 9>"$home.lock" || return 1
    printf '%s\n' "$home/bin/python"
}

# Says what keeps `venv` from working here; prints nothing when all is there.
venv_lacks() {
    command -v python3 >/dev/null || { echo "python3 is not installed"; return 1; }
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "python3 is older than 3.11"; return 1; }
    python3 -c 'import venv, ensurepip' 2>/dev/null || { echo "python3's venv module is not installed (Debian: python3-venv)"; return 1; }
}
