"""Rows of single runs, and the table of their medians, spreads and ratios."""

import datetime
import os
import statistics

# What a ratio above one means: more is better, or less is.
MORE_IS_BETTER = ("MB/s", "records/s", "produce MB/s", "transactions/s", "of bare TCP")


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


def table(rows, scale):
    out = [f"{machine()}, {datetime.date.today()}; scale {scale:g}; medians of the rounds, ± half of what lies between the "
           "lowest and the highest; in brackets how many times better Anabranch is. Names in italics keep nothing on disk.", ""]
    loads = list(dict.fromkeys(row["load"] for row in rows))
    for load in loads:
        mine = [row for row in rows if row["load"] == load]
        columns = list(dict.fromkeys(column for row in mine for column in row.get("figures", {}))) or ["outcome"]
        out += [f"**{load}**: {mine[0]['what']}", "", "| broker | " + " | ".join(columns) + " |",
                "|---|" + "---:|" * len(columns)]
        figures = {}
        for row in mine:
            by_column = figures.setdefault(row["broker"], {})
            for column, value in row.get("figures", {}).items():
                by_column.setdefault(column, []).append(value)
        # Ours beside the peers: the one that is set as the peer is.
        for broker, by_column in figures.items():
            durable = next(row["durable"] for row in mine if row["broker"] == broker)
            reference = figures.get("anabranch") or figures.get("anabranch-sync", {})
            cells = []
            for column in columns:
                values = by_column.get(column)
                if not values:
                    cells.append("")
                elif broker.startswith("anabranch") or not reference.get(column):
                    cells.append(cell(values))
                else:
                    cells.append(f"{cell(values)} ({ratio(column, reference[column], values)})")
            failed = [row["failed"] for row in mine if row["broker"] == broker and "failed" in row]
            if failed:
                cells[0] = f"{cells[0]} failed {len(failed)} times: {failed[0]}".strip().replace("|", "/").replace("\n", " ")
            shown = broker if durable else f"*{broker}*"
            out.append(f"| {shown} | " + " | ".join(cells) + " |")
        out.append("")
    return "\n".join(out)
