"""Rows of single runs, and the table of their medians, spreads and ratios."""

import datetime
import os
import statistics

# What a ratio above one means: more is better, or less is.
MORE_IS_BETTER = ("MB/s", "records/s", "produce MB/s", "tail MB/s", "catch-up MB/s", "transactions/s", "of bare TCP",
                  "delivered", "of those put")
# What says how far a row can be trusted, not how good the broker is.
NEITHER = ("sent late p99 ms", "bare TCP p50 ms", "bare TCP p99 ms")


def number(value):
    if value == 0:
        return "0"
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def line(row):
    if "failed" in row:
        return f"{row['load']:14} {row['broker']:20} failed: {row['failed']}"
    figures = "  ".join(f"{column} {number(value)}" for column, value in row["figures"].items())
    return f"{row['load']:14} {row['broker']:20} {figures}"


def cell(values):
    """The median, and how far the runs lie apart."""
    middle = statistics.median(values)
    if len(values) == 1 or middle == 0:
        return number(middle)
    return f"{number(middle)} ±{50 * (max(values) - min(values)) / middle:.0f} %"


def ratio(column, ours, theirs):
    """How many times better we are; columns that are neither better nor worse have none."""
    if column in NEITHER:
        return ""
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    over, under = (ours, theirs) if column in MORE_IS_BETTER else (theirs, ours)
    return f"{number(over / under)}x" if under else ""


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo") as info:
        for text in info:
            if text.startswith("model name"):
                model = text.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB"


def where():
    """What every row carries, so that a file of rows says what it is."""
    return {"machine": machine(), "date": str(datetime.date.today())}


def table(rows):
    out = [f"{circumstances(rows)}; medians of the rounds, ± half of what lies between the lowest and the highest; in "
           "brackets how many times better Anabranch is. Names in italics keep nothing on disk.", ""]
    for mine in by_load(rows):
        columns = list(dict.fromkeys(column for row in mine for column in row.get("figures", {}))) or ["outcome"]
        out += [f"**{mine[0]['load']}**: {mine[0]['what']}", "", "| broker | " + " | ".join(columns) + " |",
                "|---|" + "---:|" * len(columns)]
        figures = by_broker(mine)
        # Ours beside the peers: the one that is set as the peer is.
        for broker, by_column in figures.items():
            reference = figures.get("anabranch") or figures.get("anabranch-sync", {})
            cells = []
            for column in columns:
                values = by_column.get(column)
                if not values:
                    cells.append("")
                elif broker.startswith("anabranch") or not reference.get(column):
                    cells.append(cell(values))
                else:
                    better = ratio(column, reference[column], values)
                    cells.append(f"{cell(values)} ({better})" if better else cell(values))
            failed = [row["failed"] for row in mine if row["broker"] == broker and "failed" in row]
            if failed:
                cells[0] = f"{cells[0]} failed {len(failed)} times: {failed[0]}".strip().replace("|", "/").replace("\n", " ")
            out.append(f"| {shown(mine, broker)} | " + " | ".join(cells) + " |")
        out.append("")
    return "\n".join(out)


def circumstances(rows):
    distinct = {key: ", ".join(dict.fromkeys(str(row[key]) for row in rows)) for key in ("machine", "date", "scale")}
    return f"{distinct['machine']}, {distinct['date']}; scale {distinct['scale']}"


def by_load(rows):
    """The rows of each load, in the loads' order."""
    return [[row for row in rows if row["load"] == load] for load in dict.fromkeys(row["load"] for row in rows)]


def by_broker(rows):
    """The values of every column, of each broker of one load."""
    figures = {}
    for row in rows:
        by_column = figures.setdefault(row["broker"], {})
        for column, value in row.get("figures", {}).items():
            by_column.setdefault(column, []).append(value)
    return figures


def shown(rows, broker):
    return broker if next(row["durable"] for row in rows if row["broker"] == broker) else f"*{broker}*"


def summary(rows):
    """A line for each load, as README carries it: the columns of its headline, of Anabranch, Kafka and the best other."""
    out = [f"{circumstances(rows)}; medians. Ratios say how many times better Anabranch is than Kafka, or than the best "
           "other where Kafka has no part. Names in italics keep nothing on disk.", "",
           "| Load | | Anabranch | Kafka | best other | ratio |", "|---|---|---:|---:|---:|---:|"]
    for mine in by_load(rows):
        figures = by_broker(mine)
        # Of a load that nobody could do, all are empty; those that failed every time have no figures.
        columns = [column for column in mine[0]["headline"] if any(column in one for one in figures.values())] or [""]
        able = [broker for broker, by_column in figures.items() if by_column.get(columns[0])]
        ours = next((broker for broker in able if broker.startswith("anabranch")), None)
        kafka = next((broker for broker in able if broker.startswith("kafka")), None)
        others = [broker for broker in able if broker not in (ours, kafka) and not broker.startswith("anabranch")]
        best = sorted(others, key=lambda broker: statistics.median(figures[broker][columns[0]]),
                      reverse=columns[0] in MORE_IS_BETTER)[:1]
        beside = kafka or (best[0] if best else None)

        def cells(broker, name):
            if broker:
                return "; ".join(number(statistics.median(values)) if (values := figures[broker].get(column)) else "-"
                                 for column in columns)
            return "failed" if any(row["broker"].startswith(name) for row in mine) else ""
        ratios = [ratio(column, figures[ours][column], figures[beside][column]) for column in columns
                  if figures[ours].get(column) and figures[beside].get(column)] if ours and beside else []
        out.append(" | ".join([f"| {mine[0]['load']}: {mine[0]['what']}", "; ".join(columns), cells(ours, "anabranch"),
                               cells(kafka, "kafka"), f"{shown(mine, best[0])} {cells(best[0], '')}" if best else "",
                               "; ".join(ratios)]) + " |")
    return "\n".join(out)
