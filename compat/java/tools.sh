#!/usr/bin/env bash
# Runs Apache Kafka's command-line tools as their users do, a step each, and looks at what they print. LIBS is the
# folder of their jars.
set -uo pipefail
: "${BOOTSTRAP:?}" "${LIBS:?}" "${SCRATCH:?}"
id=$(od -An -N4 -tx4 /dev/urandom | tr -d ' ')
topic=java-tools-$id
group=java-tools-$id
status=0

tool() {
    timeout 90 java -Xmx256m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=error \
        -cp "$LIBS/*" "$@"
}
topics() { tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$BOOTSTRAP" "$@"; }
groups() { tool org.apache.kafka.tools.consumer.group.ConsumerGroupCommand --bootstrap-server "$BOOTSTRAP" "$@"; }
offsets() { tool org.apache.kafka.tools.GetOffsetShell --bootstrap-server "$BOOTSTRAP" --topic "$topic" "$@"; }
configs() { tool kafka.admin.ConfigCommand --bootstrap-server "$BOOTSTRAP" "$@"; }

# `expect WHAT TEXT PATTERN`: the text has a line that matches the extended regular expression.
expect() {
    grep -Eq -- "$3" <<<"$2" || { echo "$1 has no line like '$3' but: $(tail -n 3 <<<"$2" | tr '\n' ' ')"; return 1; }
}
# `refuse WHAT TEXT PATTERN`: it has none.
refuse() {
    ! grep -Eq -- "$3" <<<"$2" || { echo "$1 has a line like '$3'"; return 1; }
}

# `step NAME FUNCTION`: what the function prints is the reason when it fails.
step() {
    local why
    if why=$("$2"); then
        echo "ok $1"
    else
        echo "FAIL $1: $(tr '\n' ' ' <<<"${why:-no reason given}" | cut -c1-600)"
        status=1
    fi
}

# The sum of a column of `topic:partition:offset` lines.
sum() { awk -F: '{ sum += $3 } END { print sum + 0 }'; }

tool_topics() {
    local out
    out=$(topics --create --topic "$topic" --partitions 2 --config retention.ms=3600000 2>&1) || { echo "$out"; return 1; }
    expect create "$out" "^Created topic $topic" || return
    out=$(topics --describe --topic "$topic" 2>&1)
    expect describe "$out" "PartitionCount: 2.*ReplicationFactor: 1.*retention.ms=3600000" || return
    expect describe "$out" "Partition: 1.*Leader: [0-9]+.*Replicas: [0-9]+.*Isr: [0-9]+" || return
    out=$(topics --alter --topic "$topic" --partitions 3 2>&1) || { echo "$out"; return 1; }
    out=$(topics --describe --topic "$topic" 2>&1)
    expect describe "$out" "PartitionCount: 3" || return
    out=$(topics --list 2>&1)
    expect list "$out" "^$topic$" || return
    out=$(topics --create --topic "$topic" 2>&1)
    expect "a second creation" "$out" "already exists"
}

tool_console() {
    local sent=$SCRATCH/console-sent got=$SCRATCH/console-got out
    for n in $(seq 500); do printf 'key%d\tvalue %d with some words\n' "$((n % 37))" "$n"; done >"$sent"
    out=$(tool org.apache.kafka.tools.ConsoleProducer --bootstrap-server "$BOOTSTRAP" --topic "$topic" \
        --reader-property parse.key=true --compression-codec zstd --command-property acks=all <"$sent" 2>&1) || { echo "$out"; return 1; }
    tool org.apache.kafka.tools.consumer.ConsoleConsumer --bootstrap-server "$BOOTSTRAP" --topic "$topic" \
        --from-beginning --max-messages 500 --timeout-ms 30000 --group "$group" \
        --formatter-property print.key=true >"$got" 2>"$SCRATCH/console-errors"
    cmp -s <(sort "$sent") <(sort "$got") || { echo "sent 500 lines and read $(wc -l <"$got"): $(tail -n 2 "$SCRATCH/console-errors")"; return 1; }
}

tool_offsets() {
    local end start latest
    end=$(offsets --time latest 2>/dev/null | sum)
    start=$(offsets --time earliest 2>/dev/null | sum)
    [ "$end" = 500 ] && [ "$start" = 0 ] || { echo "the ends sum to $end and the starts to $start, not 500 and 0"; return 1; }
    latest=$(offsets --time "$(date -d 'next year' +%s)000" 2>/dev/null | sum)
    # It leaves out a partition that holds nothing at or after the time.
    [ "$latest" = 0 ] || { echo "offsets by a time in the future sum to $latest"; return 1; }
    latest=$(offsets --time "$(date -d 'last year' +%s)000" 2>/dev/null | wc -l)
    [ "$latest" = 3 ] || { echo "offsets by a time in the past are of $latest partitions"; return 1; }
}

tool_groups() {
    local out lag
    out=$(groups --list 2>&1)
    expect list "$out" "^$group$" || return
    out=$(groups --describe --group "$group" 2>&1)
    lag=$(awk -v topic="$topic" '$2 == topic { lag += $6; rows++ } END { print rows + 0, lag + 0 }' <<<"$out")
    [ "$lag" = "3 0" ] || { echo "three partitions and no lag expected, not $lag: $out"; return 1; }
    out=$(groups --describe --group "$group" --state 2>&1)
    expect state "$out" "Empty +0" || return
    out=$(groups --group "$group" --topic "$topic" --reset-offsets --to-earliest --execute 2>&1)
    expect reset "$out" "$group +$topic +2 +0" || return
    out=$(groups --describe --group "$group" 2>&1)
    lag=$(awk -v topic="$topic" '$2 == topic { lag += $6 } END { print lag + 0 }' <<<"$out")
    [ "$lag" = 500 ] || { echo "after a reset the lag is $lag"; return 1; }
    out=$(groups --delete --group "$group" 2>&1)
    expect delete "$out" "Deletion of requested consumer groups.*successful" || return
    out=$(groups --list 2>&1)
    refuse list "$out" "^$group$"
}

tool_configs() {
    local out
    out=$(configs --alter --entity-type topics --entity-name "$topic" --add-config max.message.bytes=2000000,retention.ms=7200000 2>&1)
    expect alter "$out" "Completed updating config for topic $topic" || return
    out=$(configs --describe --entity-type topics --entity-name "$topic" 2>&1)
    expect describe "$out" "max.message.bytes=2000000" || return
    expect describe "$out" "retention.ms=7200000.*DYNAMIC_TOPIC_CONFIG" || return
    out=$(configs --alter --entity-type topics --entity-name "$topic" --delete-config max.message.bytes 2>&1)
    out=$(configs --describe --entity-type topics --entity-name "$topic" 2>&1)
    refuse describe "$out" "max.message.bytes" || return
    out=$(configs --describe --all --entity-type topics --entity-name "$topic" 2>&1)
    expect "describe --all" "$out" "max.message.bytes=[0-9]+.*DEFAULT_CONFIG" || return
    out=$(configs --alter --entity-type topics --entity-name "$topic" --add-config retention.ms=soon 2>&1)
    expect "a bad value" "$out" "InvalidConfigurationException" || return
    out=$(configs --describe --all --entity-type brokers 2>&1)
    expect "the broker's" "$out" "num.partitions=4"
}

tool_delete_records() {
    local out
    printf '{"version":1,"partitions":[{"topic":"%s","partition":0,"offset":5}]}' "$topic" >"$SCRATCH/delete-records.json"
    out=$(tool org.apache.kafka.tools.DeleteRecordsCommand --bootstrap-server "$BOOTSTRAP" \
        --offset-json-file "$SCRATCH/delete-records.json" 2>&1)
    expect delete-records "$out" "low_watermark: 5" || return
    out=$(offsets --time earliest 2>/dev/null | sum)
    [ "$out" = 5 ] || { echo "the starts sum to $out"; return 1; }
}

tool_perf() {
    local out perf=java-perf-$id
    topics --create --topic "$perf" --partitions 4 >/dev/null 2>&1
    out=$(tool org.apache.kafka.tools.ProducerPerformance --bootstrap-server "$BOOTSTRAP" --topic "$perf" \
        --num-records 50000 --record-size 1024 --throughput -1 --command-property acks=all 2>&1)
    expect ProducerPerformance "$out" "^50000 records sent" || return
    out=$(tool org.apache.kafka.tools.ConsumerPerformance --bootstrap-server "$BOOTSTRAP" --topic "$perf" \
        --num-records 50000 --timeout 30000 2>&1)
    expect ConsumerPerformance "$out" "^[^,]*, [^,]*, [^,]*, [^,]*, 50000," || return
    topics --delete --topic "$perf" >/dev/null 2>&1
}

tool_cluster() {
    local out
    out=$(tool org.apache.kafka.tools.BrokerApiVersionsCommand --bootstrap-server "$BOOTSTRAP" 2>&1)
    expect api-versions "$out" "Produce\(0\): 0 to [0-9]+" || return
    out=$(tool org.apache.kafka.tools.ClusterTool cluster-id --bootstrap-server "$BOOTSTRAP" 2>&1)
    expect cluster-id "$out" "^Cluster ID: .+" || return
    out=$(tool org.apache.kafka.tools.LogDirsCommand --bootstrap-server "$BOOTSTRAP" --describe --topic-list "$topic" 2>&1)
    expect log-dirs "$out" "\"partition\":\"$topic-2\"" || return
    out=$(tool org.apache.kafka.tools.MetadataQuorumCommand --bootstrap-server "$BOOTSTRAP" describe --status 2>&1)
    expect quorum "$out" "^LeaderId: +[0-9]+" || return
    out=$(tool org.apache.kafka.tools.LeaderElectionCommand --bootstrap-server "$BOOTSTRAP" \
        --election-type preferred --all-topic-partitions 2>&1)
    refuse leader-election "$out" "Exception|Error" || return
    out=$(tool org.apache.kafka.tools.reassign.ReassignPartitionsCommand --bootstrap-server "$BOOTSTRAP" --list 2>&1)
    expect reassign "$out" "No partition reassignments found"
}

tool_delete() {
    local out
    out=$(topics --delete --topic "$topic" 2>&1) || { echo "$out"; return 1; }
    out=$(topics --list 2>&1)
    refuse list "$out" "^$topic$"
}

step tool-topics tool_topics
step tool-console tool_console
step tool-offsets tool_offsets
step tool-groups tool_groups
step tool-configs tool_configs
step tool-delete-records tool_delete_records
step tool-perf tool_perf
step tool-cluster tool_cluster
step tool-delete tool_delete
exit $status
