# For the scripts of JavaScript clients.

# Says what is missing, unless Node.js (of at least major.minor $1.$2) and npm are installed.
node_available() {
    local have
    if ! have=$(node --version 2>/dev/null); then
        echo "node is missing"
        return 1
    fi
    if ! command -v npm >/dev/null; then
        echo "npm is missing"
        return 1
    fi
    if ! node -e 'const [a, b] = process.versions.node.split("."); process.exit(+a > +process.argv[1] || (a === process.argv[1] && +b >= +process.argv[2]) ? 0 : 1)' "$1" "$2"; then
        echo "node $1.$2 or later is missing (${have#v} is installed)"
        return 1
    fi
}

# `node_program FOLDER` installs what package-lock.json in FOLDER pins below CACHE, once, lays the program beside
# it, and sets `program` to that.
node_program() {
    local folder=$1 name cache place
    name=$(basename "$folder")
    cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anabranch/compat}/$name
    place=$cache/$name
    mkdir -p "$place" "$cache/lib"
    if ! cmp -s "$folder/package-lock.json" "$place/installed"; then
        rm -f "$place/installed"
        cp "$folder/package.json" "$folder/package-lock.json" "$place"
        (cd "$place" && npm ci --ignore-scripts --no-audit --no-fund >&2)
        cp "$folder/package-lock.json" "$place/installed"
    fi
    cp "$folder"/*.js "$place"
    cp "$folder/../lib/steps.mjs" "$cache/lib"
    program=$place/main.js
}
