"""Who is slowed and why, and how much of what shards can take is used."""

from layout import (NONE_IS_BETTER, SHARE_USED, SHARD, STREAM, RED, Page, graph, over, rate, stat)

THROTTLED = "anabranch_stream_throttled_total"
IN = "anabranch_stream_incoming"
OPEN = 'sum by (stream) (anabranch_stream_shards{@stream,state="open"})'
MIB, RECORDS = 1 << 20, 1000
FULL = [("transparent", None), (RED, 1)]


def used(series, each):
    """The share of what the open shards of a stream can take together."""
    return f"{rate(f'{series}{{@stream}}', 'stream')} / ({OPEN} * {each})"


def told_apart(of, series, each):
    """The same with a label that keeps `or` from taking one of two for the other."""
    return f'label_replace({used(series, each)}, "of", "{of}", "", "")'


def counted(series):
    return f"sum(increase({series}[$__range]))"


PAGE = Page("anabranch-capacity", "Throttling and capacity", "Who is slowed, under which limit, and what room is left.",
            [STREAM, SHARD], [
    (None, [
        stat("Writes throttled", counted(f'{THROTTLED}{{@stream,direction="write",policy="enforce"}}'), "short",
             "Puts and batches refused or slowed in the time shown.", NONE_IS_BETTER, decimals=0, instant=True,
             cloudwatch="WriteProvisionedThroughputExceeded"),
        stat("Reads throttled", counted(f'{THROTTLED}{{@stream,direction="read",policy="enforce"}}'), "short",
             "Calls and fetches refused or slowed in the time shown.", NONE_IS_BETTER, decimals=0, instant=True,
             cloudwatch="ReadProvisionedThroughputExceeded"),
        stat("Beyond limits, let through", counted(f'{THROTTLED}{{@stream,policy="observe"}}'), "short",
             "What kinesis.limits=enforce would have refused or slowed on streams that only observe.", decimals=0,
             instant=True),
        stat("Kafka clients paused for shards", counted("anabranch_stream_throttle_seconds_total{@stream}"), "s",
             "Time that Kafka clients were told to pause in the time shown, because a shard was at its limit.",
             NONE_IS_BETTER, instant=True),
        stat("Kafka clients paused for quotas", counted("anabranch_quota_throttle_seconds_total{@broker}"), "s",
             "Time that Kafka clients were told to pause in the time shown, for quotas of their own.", NONE_IS_BETTER,
             instant=True),
        stat("Fullest stream", f"max({told_apart('bytes', f'{IN}_bytes_total', MIB)} or "
             f"{told_apart('records', f'{IN}_records_total', RECORDS)})",
             "percentunit", "The share of what a stream's open shards take that is used, in bytes or records.", SHARE_USED),
    ]),
    ("Throttled", [
        graph("Writes", [(rate(f'{THROTTLED}{{@stream,direction="write",policy="enforce"}}', "stream"), "{{stream}}")],
              "reqps", "Puts and batches refused (Kinesis) or slowed (Kafka).",
              cloudwatch="WriteProvisionedThroughputExceeded"),
        graph("Reads", [(rate(f'{THROTTLED}{{@stream,direction="read",policy="enforce"}}', "stream"), "{{stream}}")],
              "reqps", "Calls and fetches refused (Kinesis) or slowed (Kafka).",
              cloudwatch="ReadProvisionedThroughputExceeded"),
        graph("Beyond limits, let through",
              [(rate(f'{THROTTLED}{{@stream,policy="observe"}}', "stream", "direction"), "{{stream}}: {{direction}}")],
              "reqps", "What would have been refused or slowed on streams whose kinesis.limits is observe."),
        graph("Records of PutRecords that were throttled",
              [(rate('anabranch_stream_request_records_total{@stream,operation="PutRecords",outcome="throttled"}',
                     "stream"), "{{stream}}")], "rowsps", "Records that a client has to send again.",
              cloudwatch="PutRecords.ThrottledRecords"),
    ]),
    ("Capacity", [
        graph("Bytes written, of what shards take", [(used(f"{IN}_bytes_total", MIB), "{{stream}}")], "percentunit",
              "A shard takes 1 MiB/s. A stream can be throttled below 100 % when one shard has more than its share.",
              thresholds=FULL, cloudwatch="IncomingBytes over 1 MiB/s and OpenShardCount"),
        graph("Records written, of what shards take", [(used(f"{IN}_records_total", RECORDS), "{{stream}}")],
              "percentunit", "A shard takes 1,000 records/s.", thresholds=FULL,
              cloudwatch="IncomingRecords over 1,000/s and OpenShardCount"),
        graph("Bytes read, of what shards give",
              [(used("anabranch_stream_outgoing_bytes_total", 2 * MIB), "{{stream}}")], "percentunit",
              "A shard gives 2 MiB/s to all readers together and as much again to each fan-out consumer, so that a stream "
              "with such consumers can be over 100 %.", thresholds=FULL),
        graph("Open shards", [(OPEN, "{{stream}}")], "short", "An on-demand stream splits and merges by itself.",
              cloudwatch="OpenShardCount"),
    ]),
    ("Shards (EnableEnhancedMonitoring)", [
        graph("Bytes written, of what a shard takes",
              [(f"topk(10, {rate('anabranch_shard_incoming_bytes_total{@shard}', 'stream', 'shard')} / {MIB})",
                "{{stream}} {{shard}}")], "percentunit",
              "The ten fullest shards. A shard that is full while others are not wants to be split.", thresholds=FULL,
              enhanced=True, cloudwatch="IncomingBytes of a shard over 1 MiB/s"),
        graph("Throttled",
              [(rate("anabranch_shard_throttled_total{@shard}", "stream", "shard", "direction"),
                "{{stream}} {{shard}}: {{direction}}")], "reqps", "Writes and reads beyond a shard's limits.",
              enhanced=True, cloudwatch="WriteProvisionedThroughputExceeded, ReadProvisionedThroughputExceeded of a shard"),
    ]),
    ("Kafka clients told to pause", [
        graph("For a shard's limits",
              [(over("sum", ["stream", "direction"],
                     "rate(anabranch_stream_throttle_seconds_total{@stream}[$__rate_interval])"),
                "{{stream}}: {{direction}}")], "s",
              "Seconds of pause a second, of all clients together (throttle_time_ms)."),
        graph("For their quotas", [(rate("anabranch_quota_throttle_seconds_total{@broker}", "quota"), "{{quota}}")], "s",
              "Seconds of pause a second, by the quota that asked for it."),
        graph("Clients paused most for their quotas",
              [(f"topk(10, {rate('anabranch_client_throttle_seconds_total{@broker}', 'client', 'quota')})",
                "{{client}}: {{quota}}")], "s", "Seconds of pause a second, by client id.", width=24),
    ]),
])
