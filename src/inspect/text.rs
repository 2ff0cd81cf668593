//! The report for people: one table per kind, widest first what is looked for most.

use std::io::{self, Write};

use super::report::{Group, Partition, Report, Shard, ShareGroup, Stream};
use crate::security::date::format_extended;

/// Members, offsets and producers of one thing that are listed; the rest are counted.
const LISTED_MAX: usize = 50;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

/// Columns as wide as what stands in them.
pub struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Row>,
}

enum Row {
    Cells(Vec<String>),
    /// Belongs to the row before.
    Line(String),
}

impl Table {
    pub fn new(columns: &[(&'static str, Align)]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(Row::Cells(cells));
    }

    pub fn line(&mut self, text: String) {
        self.rows.push(Row::Line(text));
    }

    /// Nothing where there are no rows.
    pub fn print(&self, indent: usize, out: &mut impl Write) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let width_of = |(at, (title, _)): (usize, &(&str, Align))| {
            let cells = self.rows.iter().filter_map(|row| match row {
                Row::Cells(cells) => cells.get(at).map(|cell| cell.chars().count()),
                Row::Line(_) => None,
            });
            cells.max().unwrap_or(0).max(title.len())
        };
        let widths: Vec<usize> = self.columns.iter().enumerate().map(width_of).collect();
        let titles: Vec<String> = self.columns.iter().map(|(title, _)| (*title).to_owned()).collect();
        writeln!(out, "{:indent$}{}", "", self.joined(&titles, &widths))?;
        for row in &self.rows {
            match row {
                Row::Cells(cells) => writeln!(out, "{:indent$}{}", "", self.joined(cells, &widths))?,
                Row::Line(text) => writeln!(out, "{:indent$}    {text}", "")?,
            }
        }
        Ok(())
    }

    fn joined(&self, cells: &[String], widths: &[usize]) -> String {
        let aligned = cells.iter().zip(widths).zip(&self.columns).map(|((cell, width), (_, align))| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        aligned.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

/// `1.5 MiB`.
pub fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut shown = format!("{bytes} B");
    for unit in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        shown = format!("{value:.1} {unit}");
    }
    shown
}

/// `7d`, `36h`, `90s`, `1500ms`.
fn duration_text(ms: i64) -> String {
    const UNITS: [(i64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")];
    match UNITS.into_iter().find(|(unit, _)| ms > 0 && ms % unit == 0) {
        _ if ms < 0 => "for ever".to_owned(),
        Some((unit, name)) => format!("{}{name}", ms / unit),
        None => format!("{ms}ms"),
    }
}

/// `closely`: one stream, with its sequence numbers, tags and producers.
pub fn print(report: &Report, closely: bool, out: &mut impl Write) -> io::Result<()> {
    let Report { disk, .. } = report;
    writeln!(out, "Folder   {}", report.folder)?;
    writeln!(out, "Cluster  {}", report.cluster_id.as_deref().unwrap_or("none yet"))?;
    writeln!(
        out,
        "Disk     {} in files, {} of write-ahead log; {} batches of {}; dead and not dropped yet: {} of {}",
        bytes_text(disk.file_bytes),
        bytes_text(disk.wal_bytes),
        disk.batches,
        bytes_text(disk.batch_bytes),
        disk.dead_batches,
        bytes_text(disk.dead_bytes),
    )?;
    writeln!(out, "Epoch    {}; producer ids below {} are handed out", report.epoch, report.next_producer_id)?;
    for (scope, settings) in [("this node", &report.settings.node), ("the cluster", &report.settings.cluster)] {
        for (name, value) in settings {
            writeln!(out, "Altered  {name}={value} (for {scope})")?;
        }
    }
    report.streams.iter().try_for_each(|stream| print_stream(stream, closely, out))?;
    report.groups.iter().try_for_each(|group| print_group(group, out))?;
    report.share_groups.iter().try_for_each(|group| print_share_group(group, out))?;
    if !closely {
        print_transactional_ids(report, out)?;
        print_quotas(report, out)?;
    }
    print_verdict(report, out)
}

fn print_stream(stream: &Stream, closely: bool, out: &mut impl Write) -> io::Result<()> {
    let Stream { name, id, mode, status, cleanup_policy, retention_ms, .. } = stream;
    writeln!(out)?;
    writeln!(
        out,
        "Stream {name} (number {id}): {status}, {mode}, {cleanup_policy}, retention {}, created {}",
        duration_text(*retention_ms),
        format_extended(stream.created_ms),
    )?;
    writeln!(out, "  topic id {}", stream.topic_id)?;
    let pairs = |pairs: &std::collections::BTreeMap<String, String>| {
        pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    let encryption = stream.encryption.iter().map(|key| format!("new batches are sealed under {key}"));
    let keys = stream.data_keys.iter().map(|key| match &key.unusable {
        None => format!("data key {} opens", key.number),
        Some(why) => format!("data key {} cannot be used: {why}", key.number),
    });
    let facts = [
        ("settings", pairs(&stream.settings)),
        ("tags", pairs(&stream.tags)),
        ("consumers", stream.consumers.join(" ")),
        ("encryption", encryption.chain(keys).collect::<Vec<_>>().join("; ")),
    ];
    for (what, fact) in facts.into_iter().filter(|(_, fact)| !fact.is_empty()) {
        writeln!(out, "  {what} {fact}")?;
    }
    print_shards(&stream.shards, out)?;
    if closely {
        for shard in &stream.shards {
            let last = shard.last_sequence_number.as_deref().unwrap_or("none");
            writeln!(out, "  {} sequence numbers from {}; last {last}", shard.id, shard.starting_sequence_number)?;
        }
    }
    print_partitions(&stream.partitions, out)?;
    if closely { stream.partitions.iter().try_for_each(|partition| print_producers(partition, out)) } else { Ok(()) }
}

fn print_shards(shards: &[Shard], out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("SHARD", Align::Left),
        ("STATE", Align::Left),
        ("PARTITION", Align::Right),
        ("LEADER EPOCH", Align::Right),
        ("OFFSETS", Align::Left),
        ("RECORDS", Align::Right),
        ("SIZE", Align::Right),
        ("PARENTS", Align::Left),
        ("CHILDREN", Align::Left),
        ("HASH KEYS", Align::Left),
    ]);
    for shard in shards {
        table.row(vec![
            shard.id.clone(),
            if shard.open { "open" } else { "closed" }.to_owned(),
            shard.partition.to_string(),
            shard.leader_epoch.to_string(),
            format!("{}..{}", shard.start_offset, shard.next_offset),
            shard.totals.records.to_string(),
            bytes_text(shard.totals.bytes),
            ordinals(&shard.parents),
            ordinals(&shard.children),
            format!("{}..={}", shard.starting_hash_key, shard.ending_hash_key),
        ]);
    }
    table.print(2, out)
}

/// Shard ids without what they all begin with.
fn ordinals(ids: &[String]) -> String {
    let short = |id: &String| id.trim_start_matches("shardId-").trim_start_matches('0').to_owned();
    let shown = ids.iter().map(short).map(|short| if short.is_empty() { "0".to_owned() } else { short });
    shown.collect::<Vec<_>>().join(",")
}

fn print_partitions(partitions: &[Partition], out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("PARTITION", Align::Right),
        ("LOG", Align::Left),
        ("STABLE", Align::Right),
        ("BATCHES", Align::Right),
        ("RECORDS", Align::Right),
        ("SIZE", Align::Right),
        ("SEGMENTS", Align::Right),
        ("COMPACTED", Align::Right),
        ("PRODUCERS", Align::Right),
        ("TRANSACTIONS", Align::Left),
        ("LAST APPEND", Align::Left),
    ]);
    for partition in partitions {
        let transactions = match (partition.open_transactions.len(), partition.aborted_transactions) {
            (0, 0) => String::new(),
            (open, aborted) => format!("{open} open, {aborted} aborted"),
        };
        let totals = &partition.totals;
        table.row(vec![
            partition.index.to_string(),
            format!("{}..{}", partition.log_start_offset, partition.end_offset),
            partition.last_stable_offset.to_string(),
            totals.batches.to_string(),
            totals.records.to_string(),
            bytes_text(totals.bytes),
            partition.segments.to_string(),
            partition.compacted_until.map_or_else(|| "-".to_owned(), |until| until.to_string()),
            partition.producers.len().to_string(),
            transactions,
            totals.last_append_ms.map_or_else(|| "-".to_owned(), format_extended),
        ]);
        if let Some(shard) = &partition.absorbed_by {
            table.line(format!("dormant: {shard} takes what is addressed to it"));
        }
        for open in partition.open_transactions.iter().take(LISTED_MAX) {
            let (id, epoch, first) = (open.producer_id, open.producer_epoch, open.first_offset);
            table.line(format!("open: producer {id}, epoch {epoch}, from offset {first} on"));
        }
    }
    table.print(2, out)
}

fn print_producers(partition: &Partition, out: &mut impl Write) -> io::Result<()> {
    if partition.producers.is_empty() {
        return Ok(());
    }
    writeln!(out, "  producers of partition {}", partition.index)?;
    let mut table = Table::new(&[
        ("PRODUCER", Align::Right),
        ("EPOCH", Align::Right),
        ("LAST SEQUENCE", Align::Right),
        ("LAST APPEND", Align::Left),
    ]);
    for producer in partition.producers.iter().take(LISTED_MAX) {
        table.row(vec![
            producer.producer_id.to_string(),
            producer.producer_epoch.to_string(),
            producer.last_sequence.to_string(),
            format_extended(producer.last_append_ms),
        ]);
    }
    more(&mut table, partition.producers.len());
    table.print(4, out)
}

/// Says how many are not listed.
fn more(table: &mut Table, count: usize) {
    if count > LISTED_MAX {
        table.line(format!("and {} more; --json has them all", count - LISTED_MAX));
    }
}

fn print_group(group: &Group, out: &mut impl Write) -> io::Result<()> {
    let Group { id, kind, state, generation, .. } = group;
    writeln!(out)?;
    let protocol = group.protocol.iter().map(|protocol| format!(", protocol {protocol}")).collect::<String>();
    writeln!(out, "Group {id}: {kind}, {state}, generation {generation}{protocol}")?;
    for (name, value) in &group.settings {
        writeln!(out, "  setting {name}={value}")?;
    }
    print_members(&group.members, out)?;
    let mut table = Table::new(&[
        ("STREAM", Align::Left),
        ("PARTITION", Align::Right),
        ("COMMITTED", Align::Right),
        ("LAG", Align::Right),
        ("AT", Align::Left),
        ("METADATA", Align::Left),
    ]);
    for offset in group.offsets.iter().take(LISTED_MAX) {
        let pending = offset.pending_of.map(|producer| format!("pending in the transaction of producer {producer}"));
        table.row(vec![
            offset.stream.clone(),
            offset.partition.to_string(),
            offset.offset.to_string(),
            lag_text(offset.lag),
            format_extended(offset.commit_ms),
            pending.unwrap_or_else(|| offset.metadata.clone()),
        ]);
    }
    more(&mut table, group.offsets.len());
    table.print(2, out)
}

fn lag_text(lag: Option<i64>) -> String {
    lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string())
}

/// They were there when the broker stopped.
fn print_members(members: &[super::report::Member], out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("MEMBER", Align::Left),
        ("INSTANCE", Align::Left),
        ("CLIENT", Align::Left),
        ("HOST", Align::Left),
        ("EPOCH", Align::Right),
        ("SUBSCRIBED", Align::Left),
    ]);
    for member in members.iter().take(LISTED_MAX) {
        table.row(vec![
            member.id.clone(),
            member.instance_id.clone().unwrap_or_default(),
            member.client_id.clone(),
            member.client_host.clone(),
            member.epoch.to_string(),
            member.subscribed.join(" "),
        ]);
    }
    more(&mut table, members.len());
    table.print(2, out)
}

fn print_share_group(group: &ShareGroup, out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    let state = if group.members.is_empty() { "Empty" } else { "Stable" };
    writeln!(out, "Share group {}: {state}, epoch {}", group.id, group.epoch)?;
    print_members(&group.members, out)?;
    let mut table = Table::new(&[
        ("STREAM", Align::Left),
        ("PARTITION", Align::Right),
        ("PROCESSED BELOW", Align::Right),
        ("HANDED OUT BELOW", Align::Right),
        ("LAG", Align::Right),
    ]);
    for shared in group.partitions.iter().take(LISTED_MAX) {
        table.row(vec![
            shared.stream.clone(),
            shared.partition.to_string(),
            shared.start_offset.to_string(),
            shared.end_offset.to_string(),
            lag_text(shared.lag),
        ]);
    }
    more(&mut table, group.partitions.len());
    table.print(2, out)
}

fn print_transactional_ids(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("TRANSACTIONAL ID", Align::Left),
        ("PRODUCER", Align::Right),
        ("EPOCH", Align::Right),
        ("STATE", Align::Left),
        ("BEGUN", Align::Left),
        ("HOLDS", Align::Left),
    ]);
    for id in report.transactional_ids.iter().take(LISTED_MAX) {
        let groups = id.groups.iter().map(|group| format!("group {group}"));
        table.row(vec![
            id.id.clone(),
            id.producer_id.to_string(),
            id.producer_epoch.to_string(),
            id.state.to_owned(),
            id.start_ms.map_or_else(|| "-".to_owned(), format_extended),
            id.partitions.iter().cloned().chain(groups).collect::<Vec<_>>().join(" "),
        ]);
    }
    more(&mut table, report.transactional_ids.len());
    if !report.transactional_ids.is_empty() {
        writeln!(out)?;
    }
    table.print(0, out)
}

fn print_quotas(report: &Report, out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new(&[("QUOTA OF", Align::Left), ("LIMITS", Align::Left)]);
    for quota in report.quotas.iter().take(LISTED_MAX) {
        table.row(vec![quota.entity.to_string(), quota.limits.to_string()]);
    }
    more(&mut table, report.quotas.len());
    if !report.quotas.is_empty() {
        writeln!(out)?;
    }
    table.print(0, out)
}

fn print_verdict(report: &Report, out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    for unchecked in &report.unchecked {
        let (stream, batches, key) = (&unchecked.stream, unchecked.batches, unchecked.data_key);
        let why = &unchecked.why;
        writeln!(out, "UNCHECKED stream {stream}: the records of {batches} batches sealed by data key {key}: {why}")?;
    }
    let faults = &report.faults;
    faults.listed.iter().try_for_each(|fault| writeln!(out, "FAULT {fault}"))?;
    match faults.listed.len() as u64 + faults.left_out {
        0 => writeln!(out, "No fault in {} batches.", report.disk.batches),
        1 => writeln!(out, "1 fault in {} batches.", report.disk.batches),
        count if faults.left_out == 0 => writeln!(out, "{count} faults in {} batches.", report.disk.batches),
        count => {
            writeln!(out, "{count} faults in {} batches; {} are not listed.", report.disk.batches, faults.left_out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_the_readers() {
        let sizes = [0, 1_023, 1_024, 1_536, 5 << 20, 3 << 40].map(bytes_text);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 TiB"]);
        let times = [-1, 604_800_000, 129_600_000, 1_500, 0].map(duration_text);
        assert_eq!(times, ["for ever", "7d", "36h", "1500ms", "0ms"]);
        assert_eq!(ordinals(&["shardId-000000000000".into(), "shardId-000000000120".into()]), "0,120");
    }

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let mut table = Table::new(&[("A", Align::Left), ("COUNT", Align::Right)]);
        let mut out = Vec::new();
        table.print(2, &mut out).unwrap();
        assert!(out.is_empty());
        table.row(vec!["\u{e9}t\u{e9}".into(), "7".into()]);
        table.line("more".into());
        table.print(1, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), " A    COUNT\n \u{e9}t\u{e9}      7\n     more\n");
    }
}
