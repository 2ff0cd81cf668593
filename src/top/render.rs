//! Draws an [`App`] into a buffer of cells: on the screen what the view asks for, printed all of it.

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Clear, Paragraph, Row, StatefulWidget, Table, TableState, Widget};

use super::app::{App, State, View};
use super::model::{GroupRow, StreamRow};

const HEAD: u16 = 4;
/// From where on a reader is late: CloudWatch's usual alarm on iterator age.
const LATE_S: f64 = 300.0;

const HELP: &[&str] = &[
    "up, down, j, k   select a stream        Enter   its partitions, shards, consumers and groups",
    "g                groups                 Esc     back to the streams",
    "s                sort by the next       r       the other way round",
    "?, h             this help              q       quit",
    "",
    "Rates are a second, over the time between two looks. THROTTLED is what went beyond the limits of",
    "shards: refused, slowed down or only observed. AGE is how old the records are that Kinesis readers",
    "get. LAG is of the group that is behind most, in records. Shards have rows of their own where their",
    "metrics were enabled (EnableEnhancedMonitoring).",
];

/// A table of text: where each column is, and whether numbers stand in it.
struct Grid {
    title: String,
    columns: Vec<(&'static str, u16, Alignment)>,
    rows: Vec<(Vec<String>, Style)>,
}

const LEFT: Alignment = Alignment::Left;
const RIGHT: Alignment = Alignment::Right;

/// What the view asks for.
pub fn screen(app: &mut App, area: Rect, buffer: &mut Buffer) {
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(HEAD), Constraint::Min(0), Constraint::Length(1)]).areas(area);
    draw_head(app, head, buffer);
    match &app.view {
        View::Streams => streams(app).draw(body, buffer, Some(app.selected)),
        View::Groups => groups(&app.model.groups, None).draw(body, buffer, None),
        View::Stream(name) => stack(&stream(app, name), body, buffer),
    }
    let keys = format!(" q quit  ? help  Enter open  Esc back  g groups  s sort: {}  r reverse", app.sort.name());
    Line::styled(keys, Style::new().add_modifier(Modifier::DIM)).render(foot, buffer);
    if app.help {
        draw_help(area, buffer);
    }
}

/// Everything below one another.
pub fn whole(app: &App, area: Rect, buffer: &mut Buffer) {
    let [head, body] = Layout::vertical([Constraint::Length(HEAD), Constraint::Min(0)]).areas(area);
    draw_head(app, head, buffer);
    stack(&everything(app), body, buffer);
}

/// Rows that [`whole`] takes.
pub fn whole_height(app: &App) -> u16 {
    everything(app).iter().fold(HEAD, |sum, grid| sum.saturating_add(grid.height()))
}

fn everything(app: &App) -> Vec<Grid> {
    let names = app.streams().into_iter().map(|(name, _)| name.to_owned());
    let parts = names.flat_map(|name| parts(app, &name));
    [streams(app), groups(&app.model.groups, None)]
        .into_iter()
        .chain(parts)
        .filter(|grid| !grid.rows.is_empty())
        .collect()
}

fn stack(grids: &[Grid], area: Rect, buffer: &mut Buffer) {
    let mut top = area.top();
    for grid in grids {
        let height = grid.height().min(area.bottom().saturating_sub(top));
        grid.draw(Rect { y: top, height, ..area }, buffer, None);
        top = top.saturating_add(height);
    }
}

fn draw_head(app: &App, area: Rect, buffer: &mut Buffer) {
    let broker = &app.model.broker;
    let state = match &app.state {
        State::Asking => Span::styled("asking", Style::new().fg(Color::Yellow)),
        State::Watching => Span::styled("watching", Style::new().fg(Color::Green)),
        State::Restarted => Span::styled("started anew", Style::new().fg(Color::Yellow)),
        State::Gone(why) => {
            let gone = format!("GONE ({why}); this is from before, trying again");
            Span::styled(gone, Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
        }
    };
    let name = format!("Anabranch {} ", broker.version);
    let title = Span::styled(name, Style::new().add_modifier(Modifier::BOLD));
    let up = broker.uptime_s.map_or_else(String::new, |seconds| format!("  up {}", age(seconds)));
    let lines = vec![
        Line::from(vec![title, Span::raw(format!("{}{up}  ", app.url)), state]),
        Line::raw(format!(
            "In  {:>12} {:>10} rec/s   Kafka   {:>8} req/s {:>6} connections   CPU {:>6}   Memory {}",
            bytes_rate(broker.in_bytes),
            count(broker.in_records),
            count(broker.kafka_requests),
            count(broker.kafka_connections),
            broker.cpu.map_or_else(dash, |cpu| format!("{:.0} %", cpu * 100.0)),
            bytes(broker.resident_bytes),
        )),
        Line::raw(format!(
            "Out {:>12} {:>10} rec/s   Kinesis {:>8} req/s {:>6} connections   Disk {:>10}   Errors {}/s  Throttled {}/s",
            bytes_rate(broker.out_bytes),
            count(broker.out_records),
            count(broker.kinesis_requests),
            count(broker.http_connections),
            bytes(broker.disk_bytes),
            count(broker.errors),
            count(broker.throttled),
        )),
    ];
    Paragraph::new(lines).render(area, buffer);
}

fn draw_help(area: Rect, buffer: &mut Buffer) {
    let width = HELP.iter().map(|line| line.len() as u16).max().unwrap_or(0) + 2;
    let (width, height) = (width.min(area.width), (HELP.len() as u16 + 2).min(area.height));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(place, buffer);
    let lines: Vec<Line> = HELP.iter().map(|line| Line::raw(*line)).collect();
    Paragraph::new(lines).block(Block::bordered().title("Keys")).render(place, buffer);
}

fn streams(app: &App) -> Grid {
    let row = |(name, row): (&str, &StreamRow)| {
        let throttled = row.write_throttled.unwrap_or(0.0) + row.read_throttled.unwrap_or(0.0) > 0.0;
        let late = row.age_s.is_some_and(|age| age > LATE_S);
        let cells = vec![
            name.to_owned(),
            count(row.open_shards),
            row.partitions.len().to_string(),
            bytes_rate(row.in_bytes),
            count(row.in_records),
            bytes_rate(row.out_bytes),
            count(row.out_records),
            count(row.write_throttled),
            count(row.read_throttled),
            row.age_s.map_or_else(dash, age),
            count(row.lag),
            bytes(row.size_bytes),
        ];
        let style = if throttled || late { Style::new().fg(Color::Yellow) } else { Style::new() };
        (cells, style)
    };
    Grid {
        title: format!("Streams ({})", app.model.streams.len()),
        columns: vec![
            ("STREAM", 0, LEFT),
            ("SHARDS", 6, RIGHT),
            ("PARTS", 5, RIGHT),
            ("IN", 12, RIGHT),
            ("REC/S", 8, RIGHT),
            ("OUT", 12, RIGHT),
            ("REC/S", 8, RIGHT),
            ("THROTTLED W", 11, RIGHT),
            ("R", 6, RIGHT),
            ("AGE", 6, RIGHT),
            ("LAG", 9, RIGHT),
            ("SIZE", 10, RIGHT),
        ],
        rows: app.streams().into_iter().map(row).collect(),
    }
}

/// Of all streams, or of one.
fn groups(all: &[GroupRow], stream: Option<&str>) -> Grid {
    let of = all.iter().filter(|row| stream.is_none_or(|stream| stream == row.stream));
    let rows = of.map(|row| {
        let cells = vec![
            row.name.clone(),
            if row.shares { "share" } else { "consumer" }.to_owned(),
            row.stream.clone(),
            row.partitions.to_string(),
            count(Some(row.lag)),
            row.lag_s.map_or_else(dash, age),
            row.gains.map_or_else(dash, |gains| format!("{gains:+.0}/s")),
        ];
        let late = row.lag_s.is_some_and(|lag| lag > LATE_S);
        (cells, if late { Style::new().fg(Color::Yellow) } else { Style::new() })
    });
    Grid {
        title: "Groups".to_owned(),
        columns: vec![
            ("GROUP", 0, LEFT),
            ("KIND", 9, LEFT),
            ("STREAM", 24, LEFT),
            ("PARTS", 5, RIGHT),
            ("LAG", 12, RIGHT),
            ("BEHIND", 8, RIGHT),
            ("GAINS", 10, RIGHT),
        ],
        rows: rows.collect(),
    }
}

/// One stream, with those that read it.
fn stream(app: &App, name: &str) -> Vec<Grid> {
    let grids = parts(app, name).into_iter().chain([groups(&app.model.groups, Some(name))]);
    let shown: Vec<Grid> = grids.filter(|grid| !grid.rows.is_empty()).collect();
    match shown.is_empty() {
        true => vec![Grid {
            title: format!("{name}: nothing is told of it (any more)"),
            columns: Vec::new(),
            rows: Vec::new(),
        }],
        false => shown,
    }
}

/// Partitions, shards and consumers of a stream.
fn parts(app: &App, name: &str) -> Vec<Grid> {
    let Some(stream) = app.model.streams.get(name) else { return Vec::new() };
    let partitions = stream.partitions.iter().map(|(index, row)| {
        let cells = vec![
            index.to_string(),
            exact(row.log_start),
            exact(row.log_end),
            count(row.appended),
            bytes(row.size_bytes),
        ];
        (cells, Style::new())
    });
    let shards = stream.shards.iter().map(|(id, row)| {
        let cells = vec![
            id.clone(),
            bytes_rate(row.in_bytes),
            count(row.in_records),
            bytes_rate(row.out_bytes),
            count(row.out_records),
            count(row.throttled),
            row.age_s.map_or_else(dash, age),
        ];
        let throttled = row.throttled.is_some_and(|rate| rate > 0.0);
        (cells, if throttled { Style::new().fg(Color::Yellow) } else { Style::new() })
    });
    let consumers = stream.consumers.iter().map(|(consumer, row)| {
        let cells =
            vec![consumer.clone(), bytes_rate(row.bytes), count(row.records), row.behind_s.map_or_else(dash, age)];
        (cells, Style::new())
    });
    let (bytes_in, bytes_out) = (("IN", 12, RIGHT), ("OUT", 12, RIGHT));
    let records = ("REC/S", 8, RIGHT);
    vec![
        Grid {
            title: format!("{name}: partitions"),
            columns: vec![
                ("PARTITION", 9, RIGHT),
                ("FIRST OFFSET", 14, RIGHT),
                ("NEXT OFFSET", 14, RIGHT),
                ("APPENDED/S", 10, RIGHT),
                ("SIZE", 10, RIGHT),
            ],
            rows: partitions.collect(),
        },
        Grid {
            title: format!("{name}: shards"),
            columns: vec![
                ("SHARD", 20, LEFT),
                bytes_in,
                records,
                bytes_out,
                records,
                ("THROTTLED", 9, RIGHT),
                ("AGE", 6, RIGHT),
            ],
            rows: shards.collect(),
        },
        Grid {
            title: format!("{name}: consumers with enhanced fan-out"),
            columns: vec![("CONSUMER", 32, LEFT), bytes_out, records, ("BEHIND", 8, RIGHT)],
            rows: consumers.collect(),
        },
    ]
}

impl Grid {
    /// With its title, its heads and an empty line.
    fn height(&self) -> u16 {
        u16::try_from(self.rows.len()).unwrap_or(u16::MAX).saturating_add(3)
    }

    fn draw(&self, area: Rect, buffer: &mut Buffer, selected: Option<usize>) {
        if area.height == 0 {
            return;
        }
        let [title, body] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
        Line::styled(&*self.title, Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD)).render(title, buffer);
        let cells = |texts: &[String]| {
            let aligned = texts
                .iter()
                .zip(&self.columns)
                .map(|(text, (_, _, alignment))| Text::from(text.clone()).alignment(*alignment));
            Row::new(aligned.collect::<Vec<_>>())
        };
        let heads: Vec<String> = self.columns.iter().map(|(head, _, _)| (*head).to_owned()).collect();
        let widths = self.columns.iter().map(|(_, width, _)| match width {
            0 => Constraint::Fill(1),
            width => Constraint::Length(*width),
        });
        let rows: Vec<Row> = self.rows.iter().map(|(texts, style)| cells(texts).style(*style)).collect();
        let table = Table::new(rows, widths)
            .header(cells(&heads).style(Style::new().add_modifier(Modifier::DIM)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        let mut state = TableState::default().with_selected(selected);
        StatefulWidget::render(table, body, buffer, &mut state);
    }
}

fn dash() -> String {
    "-".to_owned()
}

/// `950`, `12.3k`, `4.5M`.
fn count(value: Option<f64>) -> String {
    match value {
        None => dash(),
        Some(value) if value.abs() >= 999_950.0 => format!("{:.1}M", value / 1e6),
        Some(value) if value.abs() >= 9_999.5 => format!("{:.1}k", value / 1e3),
        Some(value) if value == 0.0 || value.abs() >= 9.95 || value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) => format!("{value:.1}"),
    }
}

fn exact(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{value:.0}"))
}

fn bytes(value: Option<f64>) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let Some(mut value) = value else { return dash() };
    let mut at = 0;
    while value >= 1_023.95 && at + 1 < UNITS.len() {
        value /= 1_024.0;
        at += 1;
    }
    let unit = UNITS.get(at).copied().unwrap_or_default();
    if at == 0 { format!("{value:.0} {unit}") } else { format!("{value:.1} {unit}") }
}

fn bytes_rate(value: Option<f64>) -> String {
    value.map_or_else(dash, |value| format!("{}/s", bytes(Some(value))))
}

/// `0.4s`, `59s`, `12m`, `3h`, `2d`.
fn age(seconds: f64) -> String {
    match seconds {
        ..9.95 => format!("{seconds:.1}s"),
        ..120.0 => format!("{seconds:.0}s"),
        ..7_200.0 => format!("{:.0}m", seconds / 60.0),
        ..172_800.0 => format!("{:.0}h", seconds / 3_600.0),
        _ => format!("{:.0}d", seconds / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyModifiers};

    use super::super::app::tests::watching;
    use super::*;

    fn drawn(app: &mut App, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal
            .draw(|frame| {
                let area = frame.area();
                screen(app, area, frame.buffer_mut());
            })
            .unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| format!("{}\n", line(y).trim_end())).collect()
    }

    fn says(text: &str, all: &[&str]) {
        for said in all {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
    }

    #[test]
    fn streams_are_shown_with_their_rates() {
        let text = drawn(&mut watching(), 130, 20);
        says(
            &text,
            &[
                "Anabranch 1.2.3 http://broker:4567  up 12s  watching",
                "In     2.0 KiB/s",
                "Streams (2)",
                "s sort: name",
            ],
        );
        let row = |name: &str| {
            text.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(row("a "), ["a", "2", "1", "0", "B/s", "-", "-", "-", "-", "-", "-", "42", "2.0", "KiB"]);
        assert_eq!(row("b "), ["b", "-", "0", "2.0", "KiB/s", "-", "-", "-", "2048", "-", "-", "-", "-"]);
    }

    #[test]
    fn a_stream_is_shown_closely_and_so_are_groups_and_help() {
        let mut app = watching();
        app.press(KeyCode::Enter, KeyModifiers::NONE);
        let text = drawn(&mut app, 130, 30);
        says(&text, &["a: partitions", "77", "a: shards", "shardId-000000000000", "fan", "readers   ", "consumer"]);
        app.view = View::Groups;
        says(&drawn(&mut app, 130, 20), &["Groups", "readers", "+0/s"]);
        app.view = View::Stream("gone".into());
        says(&drawn(&mut app, 130, 20), &["gone: nothing is told of it"]);
        app.help = true;
        says(&drawn(&mut app, 130, 20), &["Keys", "EnableEnhancedMonitoring"]);
    }

    #[test]
    fn a_broker_that_is_gone_is_said_to_be() {
        let mut app = watching();
        app.take(Err("Connection refused".into()), 9_000);
        says(
            &drawn(&mut app, 130, 20),
            &["GONE (Connection refused); this is from before, trying again", "readers"][..1],
        );
    }

    #[test]
    fn no_terminal_is_too_small_and_no_frame_too_long() {
        let mut app = watching();
        for help in [false, true] {
            app.help = help;
            for (width, height) in [(1, 1), (3, 40), (200, 2), (10, 6)] {
                drawn(&mut app, width, height);
            }
        }
        let text = super::super::printed(&app, 140);
        says(&text, &["Streams (2)", "Groups", "a: partitions", "shardId-000000000000"]);
        assert!(!text.contains("q quit") && !text.contains("Keys") && text.ends_with('\n'));
    }

    #[test]
    fn numbers_are_short() {
        let counts = [0.0, 0.44, 7.0, 12.6, 9_999.0, 12_345.0, 1_500_000.0].map(|value| count(Some(value)));
        assert_eq!(counts, ["0", "0.4", "7", "13", "9999", "12.3k", "1.5M"]);
        let sizes = [0.0, 1_023.0, 1_536.0, 3e12].map(|value| bytes(Some(value)));
        assert_eq!(sizes, ["0 B", "1023 B", "1.5 KiB", "2.7 TiB"]);
        assert_eq!([0.25, 59.6, 600.0, 7_200.0, 864_000.0].map(age), ["0.2s", "60s", "10m", "2h", "10d"]);
        assert_eq!((count(None), bytes_rate(None)), ("-".to_owned(), "-".to_owned()));
    }
}
