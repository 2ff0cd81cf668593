"""What the broker costs: the process, its store, its memory budgets, retention and compaction."""

from layout import GREEN, NONE_IS_GOOD, RED, SHARE_USED, YELLOW, Page, graph, quantile, rate, stat

FREE = "anabranch_volume_free_bytes{@broker} / anabranch_volume_size_bytes{@broker}"
USED = "anabranch_memory_budget_used_bytes{@broker}"
LIMIT = "anabranch_memory_budget_limit_bytes{@broker}"
COMMIT = "anabranch_store_commit_seconds{@broker}"
STOPPED = [{"type": "value", "options": {"0": {"text": "taken", "index": 0}, "1": {"text": "stopped", "index": 1}}}]
OPERATIONS = "anabranch_kinesis_requests_total"
PROCESS = " and on (instance) anabranch_build_info"

PAGE = Page("anabranch-broker", "Store and broker", "What the broker costs, and whether its store keeps up.", [], [
    (None, [
        stat("Version", "anabranch_build_info{@broker}", "none", "What runs.", width=3, legend="{{version}}", instant=True,
             name=True),
        stat("Running for", "min(anabranch_uptime_seconds{@broker})", "dtdurations", "Time since the start.", width=3,
             instant=True),
        stat("Processor", f"sum(rate(process_cpu_seconds_total{{@broker}}[$__rate_interval]){PROCESS})", "short",
             "Cores in use.", width=3, decimals=2),
        stat("Memory", f"sum(process_resident_memory_bytes{{@broker}}{PROCESS})", "bytes", "Resident memory.", width=3),
        stat("File descriptors", f"max(process_open_fds{{@broker}} / process_max_fds{{@broker}}{PROCESS})", "percentunit",
             "Share of the descriptors that the process may open. Connections need one each.", SHARE_USED, width=3),
        stat("Free on the volume", f"min({FREE})", "percentunit", "Of the volume that the data folder is on.",
             [(RED, None), (YELLOW, 0.1), (GREEN, 0.25)], width=3),
        stat("Writes of the store", "max(anabranch_store_write_stopped{@broker})", "none",
             "Whether RocksDB takes writes: it stops them when flushes or compactions cannot follow.", NONE_IS_GOOD, width=3,
             mappings=STOPPED),
        stat("Retention behind", "max(anabranch_retention_behind_seconds{@broker})", "s",
             "How long the oldest record that is still there has been expired.", [(GREEN, None), (YELLOW, 300), (RED, 3600)],
             width=3),
    ]),
    ("Store", [
        graph("Commits",
              [(quantile(q, COMMIT), f"{q * 100:g} %") for q in (0.5, 0.95, 0.99)], "s",
              "Time of one commit, which carries what all partitions have waiting."),
        graph("Batches of a commit",
              [(rate("anabranch_store_commit_batches_sum{@broker}", "instance") + " / "
                + rate("anabranch_store_commit_batches_count{@broker}", "instance"), "{{instance}}: batches of a commit"),
               (rate("anabranch_store_commit_seconds_count{@broker}", "instance"), "{{instance}}: commits a second")],
              "short", "Under load commits carry more batches; there are not more of them."),
        graph("Bytes on disk", [("sum by (kind) (anabranch_store_disk_bytes{@broker})", "{{kind}}")], "bytes",
              "Table files, and the write-ahead log that a start has to go through.", stacked=True),
        graph("Bytes in memory", [("sum by (kind) (anabranch_store_memory_bytes{@broker})", "{{kind}}")], "bytes",
              "What RocksDB holds: write buffers, cached blocks, indexes of files.", stacked=True),
        graph("Flushes and compactions",
              [("sum by (instance) (anabranch_store_pending_jobs{@broker})", "{{instance}}")], "short",
              "Jobs that are running or waiting.", width=8),
        graph("Bytes to compact", [("sum by (instance) (anabranch_store_compaction_pending_bytes{@broker})",
                                    "{{instance}}")], "bytes", "What RocksDB estimates it has to compact.", width=8),
        graph("Writes slowed", [("max by (instance) (anabranch_store_write_delayed_bytes_per_second{@broker})",
                                 "{{instance}}: slowed to"),
                                ("max by (instance) (anabranch_store_write_stopped{@broker})", "{{instance}}: stopped (1)")],
              "Bps", "The rate RocksDB slows writes to; 0 when it does not.", width=8),
        graph("The volume", [("anabranch_volume_free_bytes{@broker}", "{{instance}}: free"),
                             ("anabranch_volume_size_bytes{@broker}", "{{instance}}: size")], "bytes",
              "Of the volume that the data folder is on."),
        graph("Free in a day", [("clamp_min(predict_linear(anabranch_volume_free_bytes{@broker}[1h], 86400), 0)", "{{instance}}")], "bytes",
              "What is left on the volume in 24 hours, if it goes on as in the last hour; 0 when nothing is."),
    ]),
    ("Retention and compaction", [
        graph("Time since retention looked",
              [("time() - anabranch_retention_last_look_timestamp_seconds{@broker}", "{{instance}}")], "s",
              "It looks every `retention-check-interval` (30 s)."),
        graph("Expired and still there", [("anabranch_retention_behind_seconds{@broker}", "{{instance}}")], "s",
              "How long the oldest record that is still there has been expired."),
        graph("Bytes removed", [(rate("anabranch_retention_deleted_bytes_total{@broker}"), "by retention"),
                                (rate("anabranch_compaction_removed_bytes_total{@broker}"), "by compaction")], "Bps",
              "What expired, and what compaction found replaced."),
        graph("Compactions", [(rate("anabranch_compactions_total{@broker}", "instance"), "{{instance}}")], "ops",
              "Partitions compacted a second."),
    ]),
    ("Memory budgets", [
        graph("Used, of the budget", [(f"max by (instance, budget) ({USED} / {LIMIT})", "{{budget}}")], "percentunit",
              "What reaches 100 % waits or is refused until there is room; caches are full by nature.", highest=1,
              thresholds=[("transparent", None), (RED, 0.95)]),
        graph("Used", [(f"sum by (budget) ({USED})", "{{budget}}")], "bytes", "Bytes by budget.", stacked=True),
    ]),
    ("Process", [
        graph("Processor", [(f"rate(process_cpu_seconds_total{{@broker}}[$__rate_interval]){PROCESS}", "{{instance}}")],
              "short", "Cores in use."),
        graph("Memory", [(f"process_resident_memory_bytes{{@broker}}{PROCESS}", "{{instance}}")], "bytes",
              "Resident memory."),
        graph("File descriptors", [(f"process_open_fds{{@broker}}{PROCESS}", "{{instance}}: open"),
                                   (f"process_max_fds{{@broker}}{PROCESS}", "{{instance}}: at most")], "short",
              "Connections and files of the store."),
        graph("Runtime", [("anabranch_runtime_alive_tasks{@broker}", "{{instance}}: tasks"),
                          ("anabranch_runtime_queued_tasks{@broker}", "{{instance}}: waiting for a worker"),
                          ("anabranch_runtime_workers{@broker}", "{{instance}}: workers"),
                          (f"process_threads{{@broker}}{PROCESS}", "{{instance}}: threads")], "short",
              "Tasks of the tokio runtime. Many that wait for a worker mean that the processors are busy."),
    ]),
    ("HTTP: the Kinesis API and CloudWatch", [
        graph("Requests of the Kinesis API", [(rate(f"{OPERATIONS}{{@broker}}", "operation") + " > 0", "{{operation}}")], "reqps",
              "Requests of the Kinesis API, by operation."),
        graph("Requests with an error",
              [(rate(f'{OPERATIONS}{{@broker,error!="NONE"}}', "operation", "error") + " > 0",
                "{{operation}}: {{error}}")], "reqps", "By operation and AWS's name. Empty when there was none."),
        graph("Latency, 99 %", [(quantile(0.99, "anabranch_kinesis_request_seconds{@broker}", "operation"),
                                 "{{operation}}")], "s", "99 of 100 requests were answered within this time. Of "
              "SubscribeToShard it is the time until events flow.", exemplars=True),
        graph("Connections",
              [("sum by (instance) (anabranch_http_connections{@broker})", "{{instance}}: open"),
               (rate("anabranch_http_connections_accepted_total{@broker}", "instance"), "{{instance}}: opened a second"),
               (rate("anabranch_http_refused_total{@broker}", "reason"), "refused a second: {{reason}}")],
              "short", "Open connections, and what is refused before it comes to an operation."),
        graph("Requests of the CloudWatch API",
              [(rate("anabranch_cloudwatch_requests_total{@broker}", "operation", "error") + " > 0",
                "{{operation}}: {{error}}")],
              "reqps", "What KCL, KPL and autoscalers publish and read, by operation and AWS's name of the error."),
        graph("Latency of the CloudWatch API, 99 %",
              [(quantile(0.99, "anabranch_cloudwatch_request_seconds{@broker}", "operation"), "{{operation}}")], "s",
              "99 of 100 requests were answered within this time."),
    ]),
    ("Audit log and traces", [
        graph("Events of the audit log", [(rate("anabranch_audit_events_total{@broker}", "outcome"), "{{outcome}}")], "ops",
              "Control operations of both doors, where `--audit-log` keeps one. What is lost found the queue full, or was not taken "
              "by the place that events go to."),
        graph("Spans lost", [(rate("anabranch_trace_spans_lost_total{@broker}", "instance"), "{{instance}}")], "ops",
              "Spans that the collector did not take, or that found the queue full."),
    ]),
])
