# For the scripts of Java clients: `java_program FOLDER` fetches the jars that FOLDER/pom.xml pins and compiles
# FOLDER/src, if there is one, against them, below CACHE, once and again when either has changed; sets `classpath`.
java_program() {
    local folder=$1 cache
    cache=${CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anabranch/compat}/$(basename "$folder")
    mkdir -p "$cache"
    if ! cmp -s "$folder/pom.xml" "$cache/pom.installed"; then
        rm -rf "$cache/pom.installed" "$cache/compiled" "$cache/libs"
        mvn --batch-mode --quiet --file "$folder/pom.xml" \
            org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
            -DincludeScope=runtime -DoutputDirectory="$cache/libs" >&2
        cp "$folder/pom.xml" "$cache/pom.installed"
    fi
    classpath="$cache/classes:$cache/libs/*"
    [ -d "$folder/src" ] || return 0
    if ! cat "$folder"/src/*.java | cmp -s - "$cache/compiled"; then
        rm -rf "$cache/compiled" "$cache/classes"
        javac -d "$cache/classes" -cp "$cache/libs/*" "$folder"/src/*.java >&2
        cat "$folder"/src/*.java >"$cache/compiled"
    fi
}

# Says what is missing, unless Maven and a JDK that is new enough are installed.
java_available() {
    local have missing=()
    command -v mvn >/dev/null || missing+=("mvn is missing")
    if ! have=$(javac -version 2>/dev/null); then
        missing+=("javac is missing")
    else
        have=${have#javac }
        [ "${have%%[.-]*}" -ge 17 ] || missing+=("a JDK 17 or later is missing ($have is installed)")
    fi
    [ ${#missing[@]} -eq 0 ] || { printf "%s\n" "${missing[@]}"; return 1; }
}
