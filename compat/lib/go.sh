# For the scripts of Go clients: `go_program FOLDER` builds the program in FOLDER below CACHE when its sources
# have changed, and sets `program` to it. go.sum pins every module.
go_program() {
    local folder=$1 name cache
    name=$(basename "$folder")
    cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anabranch/compat}/$name
    mkdir -p "$cache"
    # The build is a look-up in Go's own cache when nothing has changed.
    (cd "$folder" && go build -mod=readonly -trimpath -buildvcs=false -o "$cache/$name" .)
    program=$cache/$name
}

# Says what is missing, unless a Go that is new enough for the modules is installed.
go_available() {
    local have
    if ! have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null); then
        echo "go is missing"
        return 1
    fi
    case $have in
    go1.[0-9] | go1.[0-9].* | go1.1[0-9]* | go1.2[0-5] | go1.2[0-5].*)
        echo "go 1.26 or later is missing (${have#go} is installed)"
        return 1
        ;;
    esac
}
