"""Kafka's own: requests by API, connections, groups, transactions, share groups."""

from layout import GREEN, GROUP, RED, YELLOW, Page, graph, quantile, rate, stat, variable

REQUESTS = "anabranch_kafka_requests_total"
SECONDS = "anabranch_kafka_request_seconds"
API = variable("api", "API", "anabranch_kafka_request_seconds_count{@broker}", "An API of Kafka's protocol.")
OF_API = '{@broker,api=~"$api"}'
FAILED = rate(REQUESTS + '{@broker,error!="NONE"}')
ERRORS = [(GREEN, None), (YELLOW, 0.01), (RED, 0.05)]
# Fetches wait for records and joins for members: their time says nothing of how quick the broker is.
WAITING = "Fetch|JoinGroup|SyncGroup|ShareFetch"

PAGE = Page("anabranch-kafka", "Kafka", "Requests, groups, transactions and share groups of Kafka clients.", [API, GROUP], [
    (None, [
        stat("Requests", rate(f"{REQUESTS}{{@broker}}"), "reqps", "Requests answered."),
        stat("With an error",
             f"({FAILED} or vector(0)) / {rate(f'{REQUESTS}{{@broker}}')}",
             "percentunit", "Share of requests answered with an error. Some are part of the protocol, like "
             "REBALANCE_IN_PROGRESS.", ERRORS),
        stat("Produce, 99 %", quantile(0.99, f'{SECONDS}{{@broker,api="Produce"}}'), "s",
             "99 of 100 Produce requests were answered within this time.", [(GREEN, None), (YELLOW, 0.1), (RED, 1)]),
        stat("Connections", "sum(anabranch_kafka_connections{@broker})", "short", "Open connections.", decimals=0),
        stat("Groups", "sum(anabranch_groups{@broker})", "short", "Groups of every type and state.", decimals=0),
        stat("Open transactions", 'sum(anabranch_transactions{@broker,state="Ongoing"}) or vector(0)', "short",
             "Transactions that have records and are neither committed nor aborted.", decimals=0),
    ]),
    ("Requests", [
        graph("Requests", [(rate(f"{REQUESTS}{OF_API}", "api") + " > 0", "{{api}}")], "reqps",
              "Requests answered, by API."),
        graph("Requests with an error",
              [(rate(f'{REQUESTS}{{@broker,api=~"$api",error!="NONE"}}', "api", "error") + " > 0", "{{api}}: {{error}}")],
              "reqps", "By API and error. Empty when there was none."),
        graph("Latency, 99 %", [(quantile(0.99, f'{SECONDS}{{@broker,api=~"$api",api!~"{WAITING}"}}', "api"), "{{api}}")],
              "s", "99 of 100 requests were answered within this time. Fetches and joins, which wait on purpose, are beside "
              "this.", exemplars=True),
        graph("Latency of those that wait, 99 %", [(quantile(0.99, f'{SECONDS}{{@broker,api=~"{WAITING}"}}', "api"),
                                                    "{{api}}")], "s",
              "Fetches wait for records (fetch.max.wait.ms), joins for the other members of a group."),
        graph("Produce", [(quantile(q, f'{SECONDS}{{@broker,api="Produce"}}'), f"{q * 100:g} %") for q in (0.5, 0.95, 0.99)],
              "s", "How quickly records are acknowledged.", exemplars=True),
        graph("Connections",
              [("sum by (instance) (anabranch_kafka_connections{@broker})", "{{instance}}: open"),
               (rate("anabranch_kafka_connections_accepted_total{@broker}", "instance"), "{{instance}}: opened a second"),
               (rate("anabranch_kafka_connections_refused_total{@broker}", "reason"), "closed a second: {{reason}}")],
              "short", "Open connections, and how many are opened and closed by the broker a second."),
    ]),
    ("Consumer groups", [
        graph("Groups by type and state", [("sum by (type, state) (anabranch_groups{@broker}) > 0", "{{type}}: {{state}}")],
              "short", "A group that is seldom Stable is rebalancing all the time.", stacked=True),
        graph("Coordination",
              [(rate(f'{REQUESTS}{{@broker,api=~"JoinGroup|SyncGroup|LeaveGroup|ConsumerGroupHeartbeat|ShareGroupHeartbeat"}}',
                     "api"), "{{api}}")], "reqps", "What members of groups ask of the coordinator."),
        graph("Lag in records", [("sum by (group, stream) (anabranch_group_lag_records{@group})", "{{group}}: {{stream}}")],
              "short", "Records between what the group has committed and the end of the log.",
              to=("anabranch-consumers", "group")),
        graph("Commits", [(rate(f'{REQUESTS}{{@broker,api=~"OffsetCommit|TxnOffsetCommit"}}', "api"), "{{api}}")], "reqps",
              "Commits of offsets."),
    ]),
    ("Transactions", [
        graph("Transactions by state", [("sum by (state) (anabranch_transactions{@broker})", "{{state}}")], "short",
              "By Kafka's states.", stacked=True, width=8),
        graph("Ended", [(rate("anabranch_transactions_ended_total{@broker}", "outcome"), "{{outcome}}")], "ops",
              "By how they ended; a timeout is an abort by the broker.", width=8),
        graph("Duration, 99 %", [(quantile(0.99, "anabranch_transaction_seconds{@broker}", "outcome"), "{{outcome}}")], "s",
              "From a transaction's first partition to its end. Readers of committed records wait as long.", width=8),
    ]),
    ("Share groups", [
        graph("Backlog", [("sum by (group, stream) (anabranch_share_group_backlog_records{@group})",
                           "{{group}}: {{stream}}")], "short", "Records that the group has not processed."),
        graph("In the hands of members", [("sum by (group, stream) (anabranch_share_group_acquired_records{@group})",
                                           "{{group}}: {{stream}}")], "short",
              "Records that were delivered and not yet acknowledged."),
        graph("Delivered", [(rate("anabranch_share_group_delivered_records_total{@group}", "group"), "{{group}}: delivered"),
                            (rate("anabranch_share_group_archived_records_total{@group}", "group"), "{{group}}: given up")],
              "rowsps", "Records handed out, and those given up because they were handed out as often as they may be."),
        graph("Acknowledged",
              [(rate("anabranch_share_group_acknowledged_records_total{@group}", "group", "kind"), "{{group}}: {{kind}}")],
              "rowsps", "By what members said of them. Much release or reject means that processing fails."),
    ]),
])
