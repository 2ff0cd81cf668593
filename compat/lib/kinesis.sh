# For the scripts of Kinesis clients; sourced after the `here` of the script is set.
#
# kinesis_steps PROGRAM [ARGUMENT...]: the steps of kinesis-steps/kinesis.py, with the client that the program
# puts on kinesis-steps/bridge.py's protocol.
. "$here/../lib/venv.sh"

kinesis_steps() {
    local steps=$here/../lib/kinesis-steps python
    python=$(venv "$steps")
    export PYTHONPATH="$steps:$here/../lib" PYTHONDONTWRITEBYTECODE=1
    exec "$python" "$steps/bridge.py" "$(basename "$here")" "$@"
}
