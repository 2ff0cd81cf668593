"""Who reads and how late: GetRecords, enhanced fan-out, consumer groups."""

from layout import (CONSUMER, GROUP, LATE, NONE_IS_BETTER, STREAM, Page, graph, late_graph, quantile, rate, stat,
                    table)

AGE = "anabranch_stream_iterator_age"
BEHIND = "anabranch_consumer_behind"
SUBSCRIPTIONS = "anabranch_consumer_subscriptions_total"
EVENTS = "anabranch_consumer_events_total"
OF_GROUP = "@group,stream=~\"$stream\""
FURTHEST = f"topk(50, max by (group, stream, partition) (anabranch_group_lag_records{{{OF_GROUP}}}))"
FIVE_MINUTES = "The line is five minutes, from which on an alert is raised."

PAGE = Page("anabranch-consumers", "Consumers and iterator age", "Who reads, how far each is behind, and what it was given.",
            [STREAM, CONSUMER, GROUP], [
    (None, [
        stat("Oldest iterator", f"max({AGE}_max_seconds{{@stream}})", "s",
             "How far behind the newest record the latest reader by GetRecords is.", LATE,
             cloudwatch="GetRecords.IteratorAgeMilliseconds, Maximum"),
        stat("Latest fan-out consumer", f"max({BEHIND}_max_seconds{{@consumer}})", "s",
             "How far behind the newest record the latest SubscribeToShard reader is.", LATE,
             cloudwatch="SubscribeToShardEvent.MillisBehindLatest, Maximum"),
        stat("Latest group", f"max(anabranch_group_lag_seconds{{{OF_GROUP}}})", "s",
             "Age of the oldest record that a consumer group has not committed.", LATE),
        stat("Records behind", f"sum(anabranch_group_lag_records{{{OF_GROUP}}})", "short",
             "Records that consumer groups have not committed, of all groups together."),
        stat("Read", rate("anabranch_stream_outgoing_records_total{@stream}"), "rowsps",
             "Records that all readers were given."),
        stat("Subscriptions refused", f'sum(increase({SUBSCRIPTIONS}{{@consumer,outcome!="success"}}[$__range]))', "short",
             "SubscribeToShard calls that failed in the time shown.", NONE_IS_BETTER, decimals=0, instant=True,
             cloudwatch="SubscribeToShard.Success, SubscribeToShard.RateExceeded"),
    ]),
    ("GetRecords", [
        late_graph("Iterator age, maximum", [(f"max by (stream) ({AGE}_max_seconds{{@stream}})", "{{stream}}")], "s",
                   "How far behind the newest record what was read was, at most in the last one to two minutes. "
                   f"{FIVE_MINUTES} A stream that nobody reads has no value.", width=24,
                   cloudwatch="GetRecords.IteratorAgeMilliseconds, Maximum"),
        late_graph("Iterator age, 95 %", [(quantile(0.95, f"{AGE}_seconds{{@stream}}", "stream"), "{{stream}}")], "s",
                   f"95 of 100 calls read something this close to the newest record, or closer. {FIVE_MINUTES}",
                   cloudwatch="GetRecords.IteratorAgeMilliseconds, p95"),
        graph("Calls",
              [(rate('anabranch_stream_requests_total{@stream,operation="GetRecords"}', "stream", "outcome"),
                "{{stream}}: {{outcome}}")], "reqps", "Calls of GetRecords by how they ended.",
              cloudwatch="GetRecords.Success"),
        graph("Records", [(rate('anabranch_stream_request_records_total{@stream,operation="GetRecords"}', "stream"),
                           "{{stream}}")], "rowsps", "Records that GetRecords gave.", cloudwatch="GetRecords.Records"),
        graph("Bytes", [(rate('anabranch_stream_request_bytes_total{@stream,operation="GetRecords"}', "stream"),
                         "{{stream}}")], "Bps", "Bytes that GetRecords gave.", cloudwatch="GetRecords.Bytes"),
    ]),
    ("Enhanced fan-out", [
        late_graph("Behind the newest record, maximum",
                   [(f"max by (stream, consumer) ({BEHIND}_max_seconds{{@consumer}})", "{{stream}}: {{consumer}}")], "s",
                   f"Of the events pushed in the last one to two minutes. {FIVE_MINUTES}",
                   cloudwatch="SubscribeToShardEvent.MillisBehindLatest, Maximum"),
        late_graph("Behind the newest record, 95 %",
                   [(quantile(0.95, f"{BEHIND}_seconds{{@consumer}}", "stream", "consumer"),
                     "{{stream}}: {{consumer}}")], "s",
                   f"95 of 100 events were this close to the newest record, or closer. {FIVE_MINUTES}",
                   cloudwatch="SubscribeToShardEvent.MillisBehindLatest, p95"),
        graph("Records pushed", [(rate("anabranch_consumer_event_records_total{@consumer}", "stream", "consumer"),
                                  "{{stream}}: {{consumer}}")], "rowsps", "Records in events.",
              cloudwatch="SubscribeToShardEvent.Records"),
        graph("Bytes pushed", [(rate("anabranch_consumer_event_bytes_total{@consumer}", "stream", "consumer"),
                                "{{stream}}: {{consumer}}")], "Bps",
              "Bytes in events. A consumer is given 2 MiB/s of each shard.",
              cloudwatch="SubscribeToShardEvent.Bytes"),
        graph("Subscriptions", [(rate(f"{SUBSCRIPTIONS}{{@consumer}}", "consumer", "outcome"),
                                 "{{consumer}}: {{outcome}}")], "reqps",
              "SubscribeToShard calls by how they ended. A subscription ends after five minutes, and a reader takes out a "
              "new one.", cloudwatch="SubscribeToShard.Success, SubscribeToShard.RateExceeded"),
        graph("Events", [(rate(f"{EVENTS}{{@consumer}}", "consumer", "outcome"), "{{consumer}}: {{outcome}}")], "reqps",
              "Events pushed, and those that could not be.", cloudwatch="SubscribeToShardEvent.Success"),
    ]),
    ("Consumer groups", [
        late_graph("Lag in time", [(f"max by (group, stream) (anabranch_group_lag_seconds{{{OF_GROUP}}})",
                                    "{{group}}: {{stream}}")], "s",
                   "Age of the oldest record that the group has not committed; 0 when it has all. " + FIVE_MINUTES),
        graph("Lag in records", [(f"sum by (group, stream) (anabranch_group_lag_records{{{OF_GROUP}}})",
                                  "{{group}}: {{stream}}")], "short",
              "Records between what the group has committed and the end of the log."),
        table("Partitions that are furthest behind",
              [(FURTHEST, "short"),
               (f"max by (group, stream, partition) (anabranch_group_lag_seconds{{{OF_GROUP}}}) and {FURTHEST}", "s")],
              "One partition far behind the others means a stuck member or a key that is too hot.",
              {"group": "Group", "stream": "Stream", "partition": "Partition", "Value #A": "Records", "Value #B": "Time"},
              sort="Records"),
    ]),
])
