"""Is everything well? Who moves how much, who lags, who is slowed, what fails."""

from layout import LATE, NONE_IS_BETTER, NONE_IS_GOOD, Page, graph, late_graph, over, quantile, rate, stat, table

IN, OUT = "anabranch_stream_incoming", "anabranch_stream_outgoing"
ALERTS = 'ALERTS{alertname=~"Anabranch.*",alertstate="firing"}'
STREAMS = ("anabranch-streams", "stream")
CONSUMERS = ("anabranch-consumers", "stream")
FAILED = '{@broker,error!="NONE"}'


def busiest(series, *by):
    return f"topk(10, {rate(series, *by)})"


PAGE = Page("anabranch-overview", "Overview", "Whether streams are healthy, who lags, who is throttled.", [], [
    (None, [
        stat("Alerts", f"count({ALERTS}) or vector(0)", "none",
             "Alerts of grafana/prometheus/rules.yml that are firing; the table at the end of the page names them.",
             NONE_IS_GOOD, width=3, decimals=0),
        stat("Running for", "min(anabranch_uptime_seconds{@broker})", "dtdurations",
             "Time since the broker that started last did.", width=3, instant=True),
        stat("Streams", "count(count by (instance, stream) (anabranch_stream_shards{@broker}))", "short",
             "Streams, which are Kafka's topics. Those beyond `metrics-label-max` count as one.", width=3, decimals=0),
        stat("Open shards", 'sum(anabranch_stream_shards{@broker,state="open"})', "short",
             "Shards that take records; Kafka sees each as a partition.", width=3, decimals=0),
        stat("Written", rate(f"{IN}_records_total{{@broker}}"), "rowsps", "Records that were appended, by either protocol.",
             width=3, cloudwatch="IncomingRecords of all streams"),
        stat("Read", rate(f"{OUT}_records_total{{@broker}}"), "rowsps", "Records that were read, by either protocol.",
             width=3),
        stat("Latest reader", "max(anabranch_stream_iterator_age_max_seconds{@broker} or "
             "anabranch_consumer_behind_max_seconds{@broker} or anabranch_group_lag_seconds{@broker})", "s",
             "How late the latest reader is: by GetRecords, by SubscribeToShard or in a consumer group.", LATE, width=3),
        stat("Throttled", rate('anabranch_stream_throttled_total{@broker,policy="enforce"}'), "reqps",
             "Writes and reads that were refused or slowed because a shard was at its limit.", NONE_IS_BETTER, width=3,
             cloudwatch="WriteProvisionedThroughputExceeded and ReadProvisionedThroughputExceeded of all streams"),
    ]),
    ("Traffic of the ten busiest streams", [
        graph("Bytes written", [(busiest(f"{IN}_bytes_total{{@broker}}", "stream"), "{{stream}}")], "Bps",
              "Bytes appended a second. A click on a line leads to the stream.", to=STREAMS, cloudwatch="IncomingBytes"),
        graph("Bytes read", [(busiest(f"{OUT}_bytes_total{{@broker}}", "stream"), "{{stream}}")], "Bps",
              "Bytes read a second. A click on a line leads to the stream.", to=STREAMS),
        graph("Records written", [(busiest(f"{IN}_records_total{{@broker}}", "stream"), "{{stream}}")], "rowsps",
              "Records appended a second.", to=STREAMS, cloudwatch="IncomingRecords"),
        graph("Records read", [(busiest(f"{OUT}_records_total{{@broker}}", "stream"), "{{stream}}")], "rowsps",
              "Records read a second.", to=STREAMS),
    ]),
    ("Who lags", [
        late_graph("Readers through the Kinesis API",
                   [("topk(10, max by (stream) (anabranch_stream_iterator_age_max_seconds{@broker}))",
                     "{{stream}}: GetRecords"),
                    ("topk(10, max by (stream, consumer) (anabranch_consumer_behind_max_seconds{@broker}))",
                     "{{stream}}: {{consumer}}")], "s",
                   "How far behind the newest record the last records read were; the line is five minutes. A stream that "
                   "nobody read lately has no value. A click on a line leads to its readers.", to=CONSUMERS,
                   cloudwatch="GetRecords.IteratorAgeMilliseconds and SubscribeToShardEvent.MillisBehindLatest, Maximum"),
        late_graph("Consumer groups",
                   [("topk(10, max by (group, stream) (anabranch_group_lag_seconds{@broker}))", "{{group}}: {{stream}}")],
                   "s", "Age of the oldest record that a group has not committed; the line is five minutes.",
                   to=("anabranch-consumers", "group")),
    ]),
    ("Limits and failures", [
        graph("Throttled",
              [(over("sum", ["stream", "direction"],
                     'rate(anabranch_stream_throttled_total{@broker,policy="enforce"}[$__rate_interval])') + " > 0",
                "{{stream}}: {{direction}}")], "reqps",
              "Streams that were slowed or refused for a shard's limits. Empty when none was.",
              to=("anabranch-capacity", "stream"),
              cloudwatch="WriteProvisionedThroughputExceeded, ReadProvisionedThroughputExceeded"),
        graph("Requests that failed",
              [(rate(f"anabranch_kafka_requests_total{FAILED}", "api", "error") + " > 0", "Kafka {{api}}: {{error}}"),
               (rate(f"anabranch_kinesis_requests_total{FAILED}", "operation", "error") + " > 0",
                "Kinesis {{operation}}: {{error}}")], "reqps",
              "Requests answered with an error. Some are part of a protocol, like REBALANCE_IN_PROGRESS. Empty when there "
              "was none."),
        graph("Latency of writes, 99 %",
              [(quantile(0.99, 'anabranch_kafka_request_seconds{@broker,api="Produce"}'), "Kafka Produce"),
               (quantile(0.99, 'anabranch_kinesis_request_seconds{@broker,operation=~"PutRecord|PutRecords"}', "operation"),
                "Kinesis {{operation}}")], "s",
              "99 of 100 requests were answered within this time, throttling and the wait for the store included.",
              exemplars=True),
        graph("Space on the volume",
              [("anabranch_volume_free_bytes{@broker}", "{{instance}}: free"),
               ("sum by (instance) (anabranch_store_disk_bytes{@broker})", "{{instance}}: used by the store")], "bytes",
              "What is free on the volume of the data folder, and what the store takes of it."),
    ]),
    ("Alerts", [
        table("Alerts that are firing", [(ALERTS, "none")], "Of grafana/prometheus/rules.yml. Empty when all is well.",
              {"alertname": "Alert", "severity": "Severity", "instance": "Broker", "stream": "Stream", "group": "Group",
               "consumer": "Consumer"}, hide=["__name__", "alertstate", "job", "Value"], height=7),
    ]),
])
