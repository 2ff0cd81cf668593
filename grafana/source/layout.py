"""What the pages are made of: panels that look alike, laid out in rows of 24 columns, in the JSON of Grafana's dashboards.

In expressions @broker, @stream, @shard, @group and @consumer stand for the matchers of the page's variables. A page gives
panels their numbers in the order of the page.
"""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
TAG = "anabranch"
RATE = "[$__rate_interval]"
ENHANCED = "Streams have it after EnableEnhancedMonitoring, as on AWS."
# Beyond this a reader is late: the line in graphs and the bound of the alerts.
LATE_SECONDS = 300
GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
# (colour, from): the first has no lower end.
LATE = [(GREEN, None), (YELLOW, LATE_SECONDS / 5), (RED, LATE_SECONDS)]
NONE_IS_GOOD = [(GREEN, None), (RED, 0.000001)]
NONE_IS_BETTER = [(GREEN, None), (YELLOW, 0.000001)]
SHARE_USED = [(GREEN, None), (YELLOW, 0.7), (RED, 0.9)]
PLAIN = [(BLUE, None)]

BROKER = 'instance=~"$instance"'
MATCHERS = {
    "@broker": BROKER,
    "@stream": f'{BROKER},stream=~"$stream"',
    "@shard": f'{BROKER},stream=~"$stream",shard=~"$shard"',
    "@consumer": f'{BROKER},stream=~"$stream",consumer=~"$consumer"',
    "@group": f'{BROKER},group=~"$group"',
}


def expression(text):
    for word, matcher in MATCHERS.items():
        text = text.replace(word, matcher)
    return text


def rate(series, *by):
    """What a counter grows by in a second, summed over everything but the labels `by`."""
    return over("sum", by, f"rate({series}{RATE})")


def over(aggregation, by, inner):
    return f"{aggregation} by ({', '.join(by)}) ({inner})" if by else f"{aggregation}({inner})"


def quantile(q, histogram, *by):
    """A quantile of a histogram, given without `_bucket`: `name{matchers}`. What had no sample has none, instead of a
    line of NaN."""
    name, _, matchers = histogram.partition("{")
    buckets = rate(f"{name}_bucket{{{matchers}", *by, "le")
    return f"histogram_quantile({q}, {buckets}) >= 0"


def mean(histogram, *by):
    name, _, matchers = histogram.partition("{")
    return f"{rate(f'{name}_sum{{{matchers}', *by)} / {rate(f'{name}_count{{{matchers}', *by)} >= 0"


def describe(text, cloudwatch=None, enhanced=False):
    """The text behind a panel's (i)."""
    parts = [text]
    if cloudwatch:
        parts.append(f"CloudWatch: {cloudwatch}.")
    if enhanced:
        parts.append(ENHANCED)
    return " ".join(parts)


def steps(thresholds):
    return {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in thresholds]}


def target(number, expr, legend, **more):
    return {"datasource": DATASOURCE, "editorMode": "code", "expr": expression(expr), "legendFormat": legend,
            "refId": chr(ord("A") + number), **more}


def panel(kind, title, width, height, text, targets, options, defaults, overrides=()):
    return {"type": kind, "title": title, "description": text, "datasource": DATASOURCE,
            "gridPos": {"w": width, "h": height, "x": 0, "y": 0}, "targets": targets, "options": options,
            "fieldConfig": {"defaults": defaults, "overrides": list(overrides)}}


def stat(title, expr, unit, text, thresholds=PLAIN, *, width=4, decimals=None, instant=False, mappings=(), legend="__auto",
         name=False, cloudwatch=None, enhanced=False):
    """One number, with how it came to it behind; `instant` for what is already counted over the time shown. With `name`
    the legend is what is shown."""
    options = {"colorMode": "value", "graphMode": "none" if instant else "area", "justifyMode": "auto",
               "orientation": "auto", "percentChangeColorMode": "standard", "showPercentChange": False,
               "textMode": "name" if name else "value", "wideLayout": True,
               "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
    defaults = {"unit": unit, "color": {"mode": "thresholds"}, "thresholds": steps(thresholds),
                "mappings": list(mappings), "noValue": "–"}
    if decimals is not None:
        defaults["decimals"] = decimals
    query = target(0, expr, legend, instant=instant, range=not instant)
    return panel("stat", title, width, 4, describe(text, cloudwatch, enhanced), [query], options, defaults)


def graph(title, queries, unit, text, *, width=12, height=8, thresholds=None, stacked=False, highest=None, to=None,
          cloudwatch=None, enhanced=False, exemplars=False):
    """Lines over time. `queries` are pairs of an expression and its legend; `thresholds` are drawn as lines; `highest`
    fixes the upper end of the axis; `to` is the page that a click on a line leads to, by one of its labels."""
    custom = {"drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "fillOpacity": 30 if stacked else 8,
              "gradientMode": "none", "showPoints": "never", "spanNulls": False, "axisSoftMin": 0,
              "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
              "thresholdsStyle": {"mode": "line+area" if thresholds else "off"}}
    defaults = {"unit": unit, "min": 0, "color": {"mode": "palette-classic-by-name"}, "custom": custom,
                "thresholds": steps(thresholds or [(GREEN, None)])}
    if highest is not None:
        defaults["max"] = highest
    if to:
        page, label = to
        defaults["links"] = [{"title": f"${{__field.labels.{label}}} in detail", "targetBlank": False,
                              "url": f"/d/{page}?${{__url_time_range}}&${{datasource:queryparam}}&${{instance:queryparam}}"
                                     f"&var-{label}=${{__field.labels.{label}}}"}]
    options = {"legend": {"displayMode": "table", "placement": "bottom", "showLegend": True,
                          "calcs": ["mean", "max", "lastNotNull"], "sortBy": "Max", "sortDesc": True},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    targets = [target(number, expr, legend, range=True, **({"exemplar": True} if exemplars else {}))
               for number, (expr, legend) in enumerate(queries)]
    return panel("timeseries", title, width, height, describe(text, cloudwatch, enhanced), targets, options, defaults)


def late_graph(*arguments, **named):
    """A graph of how late readers are, with the line from which on an alert is raised."""
    return graph(*arguments, thresholds=[("transparent", None), (RED, LATE_SECONDS)], **named)


def table(title, queries, text, columns, *, width=24, height=8, hide=(), sort=None, cloudwatch=None):
    """The present values, a row for each set of labels. `queries` are pairs of an expression and the column's unit;
    `columns` gives names to labels and, as Value #A and so on, to values; `sort` is the column that orders the rows."""
    targets = [target(number, expr, "__auto", instant=True, range=False, format="table")
               for number, (expr, _) in enumerate(queries)]
    values = [f"Value #{one['refId']}" for one in targets] if len(targets) > 1 else ["Value"]
    overrides = [{"matcher": {"id": "byName", "options": columns.get(value, value)},
                  "properties": [{"id": "unit", "value": unit}]} for value, (_, unit) in zip(values, queries)]
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True,
               "sortBy": [{"displayName": sort, "desc": True}] if sort else []}
    made = panel("table", title, width, height, describe(text, cloudwatch), targets, options,
                 {"custom": {"align": "auto", "filterable": True, "inspect": False}}, overrides)
    made["transformations"] = [{"id": "merge", "options": {}},
                               {"id": "organize", "options": {"excludeByName": {name: True for name in ("Time", *hide)},
                                                              "indexByName": {}, "renameByName": columns}}]
    return made


def variable(name, label, series, text):
    """A choice among the values of a label; everything is chosen at first, without naming each value in a query."""
    query = f"label_values({expression(series)}, {name})"
    return {"type": "query", "name": name, "label": label, "description": text, "datasource": DATASOURCE,
            "query": {"query": query, "refId": name}, "refresh": 2, "sort": 7, "multi": True, "includeAll": True,
            "allValue": ".+", "current": {"text": ["All"], "value": ["$__all"]}, "hide": 0, "skipUrlSync": False}


STREAM = variable("stream", "Stream", "anabranch_stream_shards{@broker}", "A Kinesis stream, which is a Kafka topic.")
SHARD = variable("shard", "Shard", "anabranch_shard_incoming_records_total{@stream}",
                 f"A shard. {ENHANCED}")
GROUP = variable("group", "Group", '{__name__=~"anabranch_(group_lag|share_group_backlog)_records",@broker}',
                 "A consumer group or share group.")
CONSUMER = variable("consumer", "Consumer", "anabranch_consumer_subscriptions_total{@stream}",
                    "A consumer registered for enhanced fan-out.")
INSTANCE = variable("instance", "Broker", "anabranch_build_info", "A broker, as Prometheus names what it scrapes.")


class Page:
    """One dashboard: its rows are pairs of a title (None for the numbers at the top) and panels from left to right."""

    def __init__(self, uid, title, text, variables, rows):
        self.uid, self.title, self.text, self.variables, self.rows = uid, title, text, variables, rows

    def panels(self):
        top = 0
        for title, panels in self.rows:
            if title:
                yield {"type": "row", "title": title, "collapsed": False, "panels": [],
                       "gridPos": {"x": 0, "y": top, "w": 24, "h": 1}}
                top += 1
            left = height = 0
            for one in panels:
                place = one["gridPos"]
                if left + place["w"] > 24:
                    left, top, height = 0, top + height, 0
                place.update(x=left, y=top)
                left, height = left + place["w"], max(height, place["h"])
                yield one
            top += height

    def dashboard(self):
        datasource = {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus",
                      "hide": 0, "includeAll": False, "multi": False, "refresh": 1, "regex": "",
                      "skipUrlSync": False}
        restarts = {"name": "Broker starts", "enable": True, "hide": False, "iconColor": "purple",
                    "datasource": DATASOURCE,
                    "target": {"refId": "Starts", "expr": expression("resets(anabranch_uptime_seconds{@broker}[2m]) > 0")}}
        return {
            "uid": self.uid, "title": f"Anabranch: {self.title}", "description": self.text, "tags": [TAG],
            "schemaVersion": 41, "version": 1, "editable": True, "graphTooltip": 1, "refresh": "30s",
            "time": {"from": "now-1h", "to": "now"}, "timezone": "browser", "fiscalYearStartMonth": 0,
            "timepicker": {}, "annotations": {"list": [restarts]},
            "links": [{"type": "dashboards", "title": "Anabranch", "tags": [TAG], "asDropdown": False, "icon": "dashboard",
                       "includeVars": True, "keepTime": True, "targetBlank": False, "tooltip": "", "url": ""}],
            "templating": {"list": [datasource, INSTANCE, *self.variables]},
            "panels": [{"id": number, **one} for number, one in enumerate(self.panels(), 1)],
        }
