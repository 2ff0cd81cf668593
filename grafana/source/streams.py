"""One stream or some: what comes in and goes out, how the Kinesis API answers, its shards, what the log holds."""

from layout import (GREEN, RED, SHARD, STREAM, YELLOW, Page, graph, late_graph, mean, quantile, rate, stat,
                    table)

IN, OUT = "anabranch_stream_incoming", "anabranch_stream_outgoing"
SHARD_IN, SHARD_OUT = "anabranch_shard_incoming", "anabranch_shard_outgoing"
REQUESTS = "anabranch_stream_requests_total"
RECORDS = "anabranch_stream_request_records_total"
PUTS = 'operation=~"PutRecord|PutRecords"'
SUCCEEDED = 'outcome="success"'
LARGEST = "topk(50, sum by (stream, partition) (anabranch_partition_size_bytes{@stream}))"
MIB = 1 << 20
SUCCESS = [(RED, None), (YELLOW, 0.95), (GREEN, 0.999)]

PAGE = Page("anabranch-streams", "Streams and shards", "What streams and their shards take, give and hold.",
            [STREAM, SHARD], [
    (None, [
        stat("Open shards", 'sum(anabranch_stream_shards{@stream,state="open"})', "short", "Shards that take records.",
             width=3, decimals=0, cloudwatch="OpenShardCount"),
        stat("Closed shards", 'sum(anabranch_stream_shards{@stream,state="closed"})', "short",
             "Shards that were split or merged and still hold records.", width=3, decimals=0),
        stat("Records written", rate(f"{IN}_records_total{{@stream}}"), "rowsps", "By either protocol.", width=3,
             cloudwatch="IncomingRecords"),
        stat("Bytes written", rate(f"{IN}_bytes_total{{@stream}}"), "Bps", "By either protocol.", width=3,
             cloudwatch="IncomingBytes"),
        stat("Bytes read", rate(f"{OUT}_bytes_total{{@stream}}"), "Bps", "By either protocol.", width=3,
             cloudwatch="OutgoingBytes, summed over shards"),
        stat("Puts that succeed",
             f"{rate(f'{REQUESTS}{{@stream,{PUTS},{SUCCEEDED}}}')} / {rate(f'{REQUESTS}{{@stream,{PUTS}}}')}",
             "percentunit", "Share of PutRecord and PutRecords calls that were answered without an error.", SUCCESS,
             width=3, cloudwatch="PutRecord.Success, PutRecords.Success"),
        stat("Records held", "sum(anabranch_partition_log_end_offset{@stream} - anabranch_partition_log_start_offset{@stream})",
             "short", "Offsets from the first to the last record. A compacted stream holds fewer records than that.",
             width=3),
        stat("Bytes held", "sum(anabranch_partition_size_bytes{@stream})", "bytes",
             "Bytes of the record batches that have not expired.", width=3),
    ]),
    ("Streams", [
        graph("Bytes written", [(rate(f"{IN}_bytes_total{{@stream}}", "stream"), "{{stream}}")], "Bps",
              "Bytes appended a second, by either protocol.", cloudwatch="IncomingBytes"),
        graph("Records written", [(rate(f"{IN}_records_total{{@stream}}", "stream"), "{{stream}}")], "rowsps",
              "Records appended a second, by either protocol.", cloudwatch="IncomingRecords"),
        graph("Bytes read", [(rate(f"{OUT}_bytes_total{{@stream}}", "stream"), "{{stream}}")], "Bps",
              "Bytes read a second by all readers of either protocol.", cloudwatch="OutgoingBytes, summed over shards"),
        graph("Records read", [(rate(f"{OUT}_records_total{{@stream}}", "stream"), "{{stream}}")], "rowsps",
              "Records read a second by all readers of either protocol.",
              cloudwatch="OutgoingRecords, summed over shards"),
        graph("Shards", [("sum by (stream, state) (anabranch_stream_shards{@stream})", "{{stream}}: {{state}}")], "short",
              "A split opens shards and closes one, a merge the other way about; a closed shard goes when its records have "
              "expired.", cloudwatch="OpenShardCount"),
        graph("Bytes held", [("sum by (stream) (anabranch_partition_size_bytes{@stream})", "{{stream}}")], "bytes",
              "Bytes of the record batches that have not expired.", stacked=True),
    ]),
    ("The Kinesis API", [
        graph("Calls", [(rate(f"{REQUESTS}{{@stream}}", "operation", "outcome"), "{{operation}}: {{outcome}}")], "reqps",
              "Calls by how they ended. A PutRecords that took some of its records is a success, as on AWS.",
              cloudwatch="PutRecord.Success, PutRecords.Success, GetRecords.Success and their sample counts"),
        graph("Latency, 99 %",
              [(quantile(0.99, "anabranch_stream_request_seconds{@stream}", "operation"), "{{operation}}")], "s",
              "99 of 100 calls were answered within this time.", exemplars=True,
              cloudwatch="PutRecord.Latency, PutRecords.Latency, GetRecords.Latency, p99"),
        graph("Latency, mean", [(mean("anabranch_stream_request_seconds{@stream}", "operation"), "{{operation}}")], "s",
              "Time of a call, on average.",
              cloudwatch="PutRecord.Latency, PutRecords.Latency, GetRecords.Latency, Average"),
        graph("Bytes of calls", [(rate("anabranch_stream_request_bytes_total{@stream}", "operation"), "{{operation}}")],
              "Bps", "Bytes of the records in calls.", cloudwatch="PutRecord.Bytes, PutRecords.Bytes, GetRecords.Bytes"),
        graph("Records of PutRecords",
              [(rate(f'{RECORDS}{{@stream,operation="PutRecords"}}', "outcome"), "{{outcome}}")], "rowsps",
              "What became of the records of PutRecords calls; their sum is what was sent.", stacked=True,
              cloudwatch="PutRecords.SuccessfulRecords, FailedRecords, ThrottledRecords and, summed, TotalRecords"),
        graph("Records of GetRecords", [(rate(f'{RECORDS}{{@stream,operation="GetRecords"}}', "stream"), "{{stream}}")],
              "rowsps", "Records that GetRecords gave.", cloudwatch="GetRecords.Records"),
    ]),
    ("Shards (EnableEnhancedMonitoring)", [
        graph("Bytes written", [(rate(f"{SHARD_IN}_bytes_total{{@shard}}", "stream", "shard"), "{{stream}} {{shard}}")],
              "Bps", "Bytes appended a second.", thresholds=[("transparent", None), (RED, MIB)], enhanced=True,
              cloudwatch="IncomingBytes of a shard; the line is its limit"),
        graph("Records written",
              [(rate(f"{SHARD_IN}_records_total{{@shard}}", "stream", "shard"), "{{stream}} {{shard}}")], "rowsps",
              "Records appended a second.", thresholds=[("transparent", None), (RED, 1000)], enhanced=True,
              cloudwatch="IncomingRecords of a shard; the line is its limit"),
        graph("Bytes read", [(rate(f"{SHARD_OUT}_bytes_total{{@shard}}", "stream", "shard"), "{{stream}} {{shard}}")],
              "Bps", "Bytes read a second, fan-out consumers included.", enhanced=True, cloudwatch="OutgoingBytes"),
        graph("Records read",
              [(rate(f"{SHARD_OUT}_records_total{{@shard}}", "stream", "shard"), "{{stream}} {{shard}}")], "rowsps",
              "Records read a second, fan-out consumers included.", enhanced=True, cloudwatch="OutgoingRecords"),
        late_graph("Iterator age",
                   [("max by (stream, shard) (anabranch_shard_iterator_age_max_seconds{@shard})", "{{stream}} {{shard}}")],
                   "s", "How far behind the newest record what was read from a shard was; the line is five minutes.",
                   enhanced=True, cloudwatch="IteratorAgeMilliseconds of a shard, Maximum"),
        graph("Throttled",
              [(rate("anabranch_shard_throttled_total{@shard}", "stream", "shard", "direction"),
                "{{stream}} {{shard}}: {{direction}}")], "reqps", "Writes and reads beyond a shard's limits.",
              enhanced=True, cloudwatch="WriteProvisionedThroughputExceeded, ReadProvisionedThroughputExceeded of a shard"),
    ]),
    ("Partitions", [
        table("The largest partitions",
              [(LARGEST, "bytes"),
               (f"sum by (stream, partition) (anabranch_partition_log_start_offset{{@stream}}) and {LARGEST}", "none"),
               (f"sum by (stream, partition) (anabranch_partition_log_end_offset{{@stream}}) and {LARGEST}", "none")],
              "What each partition holds, as Kafka sees it: a chain of shards over one log.",
              {"stream": "Stream", "partition": "Partition", "Value #A": "Bytes held", "Value #B": "First offset",
               "Value #C": "Next offset"}, sort="Bytes held", height=9),
    ]),
])
