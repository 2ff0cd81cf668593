//! What is on the screen and what keys do to it. Pure: samples and keys come in.

use std::cmp::Ordering;

use ratatui::crossterm::event::{KeyCode, KeyModifiers};

use super::model::{Model, StreamRow, model, restarted};
use super::sample::Sample;

#[derive(Debug)]
pub struct App {
    pub url: String,
    pub model: Model,
    pub state: State,
    pub view: View,
    pub help: bool,
    pub sort: Sort,
    /// The smallest first.
    pub reversed: bool,
    /// Of the streams in their order.
    pub selected: usize,
    last: Option<(Sample, i64)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing was heard yet.
    Asking,
    Watching,
    /// It answers, but is not the one it was: rates begin anew.
    Restarted,
    /// Why nothing is heard. What is shown is from before.
    Gone(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    Streams,
    Groups,
    Stream(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    Name,
    Incoming,
    Outgoing,
    Throttled,
    Lag,
    Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Go,
    Quit,
}

impl Sort {
    pub fn name(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::Incoming => "bytes in",
            Sort::Outgoing => "bytes out",
            Sort::Throttled => "throttling",
            Sort::Lag => "lag",
            Sort::Size => "size",
        }
    }

    fn next(self) -> Sort {
        match self {
            Sort::Name => Sort::Incoming,
            Sort::Incoming => Sort::Outgoing,
            Sort::Outgoing => Sort::Throttled,
            Sort::Throttled => Sort::Lag,
            Sort::Lag => Sort::Size,
            Sort::Size => Sort::Name,
        }
    }

    /// What is sorted by, the largest first; names sort by themselves.
    fn of(self, row: &StreamRow) -> f64 {
        let value = match self {
            Sort::Name => None,
            Sort::Incoming => row.in_bytes,
            Sort::Outgoing => row.out_bytes,
            Sort::Throttled => Some(row.write_throttled.unwrap_or(0.0) + row.read_throttled.unwrap_or(0.0)),
            Sort::Lag => row.lag,
            Sort::Size => row.size_bytes,
        };
        value.unwrap_or(-1.0)
    }
}

impl App {
    pub fn new(url: String) -> App {
        App {
            url,
            model: Model::default(),
            state: State::Asking,
            view: View::Streams,
            help: false,
            sort: Sort::Name,
            reversed: false,
            selected: 0,
            last: None,
        }
    }

    /// What a look at `tick_ms` came to.
    pub fn take(&mut self, outcome: Result<Sample, String>, tick_ms: i64) {
        let sample = match outcome {
            Ok(sample) => sample,
            Err(why) => {
                self.state = State::Gone(why);
                return;
            }
        };
        let before = self.last.as_ref().map(|(before, at)| (before, tick_ms - at));
        let anew = before.is_some_and(|(before, _)| restarted(before, &sample));
        self.model = model(before, &sample);
        self.state = if anew { State::Restarted } else { State::Watching };
        self.last = Some((sample, tick_ms));
        self.selected = self.selected.min(self.model.streams.len().saturating_sub(1));
    }

    /// Streams in the order in which they are shown.
    pub fn streams(&self) -> Vec<(&str, &StreamRow)> {
        let mut streams: Vec<_> = self.model.streams.iter().map(|(name, row)| (name.as_str(), row)).collect();
        // Stable, so that equals stay in the order of their names.
        streams.sort_by(|(_, a), (_, b)| self.sort.of(b).partial_cmp(&self.sort.of(a)).unwrap_or(Ordering::Equal));
        if self.reversed {
            streams.reverse();
        }
        streams
    }

    pub fn press(&mut self, key: KeyCode, modifiers: KeyModifiers) -> Flow {
        let last = self.model.streams.len().saturating_sub(1);
        match key {
            KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => return Flow::Quit,
            KeyCode::Char('q') => return Flow::Quit,
            _ if self.help => self.help = false,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('g') => {
                self.view = if self.view == View::Groups { View::Streams } else { View::Groups };
            }
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            KeyCode::Enter if self.view == View::Streams => {
                let name = self.streams().get(self.selected).map(|(name, _)| (*name).to_owned());
                self.view = name.map_or(View::Streams, View::Stream);
            }
            KeyCode::Esc | KeyCode::Backspace => self.view = View::Streams,
            _ => {}
        }
        Flow::Go
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Two streams; `b` has more coming in, `a` lags.
    pub fn sample(uptime_s: u64, bytes: u64) -> Sample {
        let text = format!(
            "anabranch_build_info{{version=\"1.2.3\"}} 1\nanabranch_uptime_seconds {uptime_s}\n\
             anabranch_stream_incoming_bytes_total{{stream=\"a\"}} 1\n\
             anabranch_stream_incoming_bytes_total{{stream=\"b\"}} {bytes}\n\
             anabranch_stream_shards{{stream=\"a\",state=\"open\"}} 2\n\
             anabranch_stream_throttled_total{{stream=\"b\",direction=\"write\",policy=\"enforce\"}} {bytes}\n\
             anabranch_partition_size_bytes{{stream=\"a\",partition=\"0\"}} 2048\n\
             anabranch_partition_log_end_offset{{stream=\"a\",partition=\"0\"}} 77\n\
             anabranch_consumer_event_records_total{{stream=\"a\",consumer=\"fan\"}} {bytes}\n\
             anabranch_shard_incoming_bytes_total{{stream=\"a\",shard=\"shardId-000000000000\"}} {bytes}\n\
             anabranch_group_lag_records{{group=\"readers\",stream=\"a\",partition=\"0\"}} 42\n"
        );
        Sample::parse(&text).unwrap()
    }

    pub fn watching() -> App {
        let mut app = App::new("http://broker:4567".into());
        app.take(Ok(sample(10, 0)), 1_000);
        app.take(Ok(sample(12, 4_096)), 3_000);
        app
    }

    fn press(app: &mut App, keys: &[KeyCode]) -> Flow {
        keys.iter().map(|key| app.press(*key, KeyModifiers::NONE)).last().unwrap()
    }

    fn order(app: &App) -> Vec<&str> {
        app.streams().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn keys_sort_select_and_open() {
        let mut app = watching();
        assert_eq!(order(&app), ["a", "b"]);
        press(&mut app, &[KeyCode::Char('s')]);
        assert_eq!((app.sort, order(&app)), (Sort::Incoming, vec!["b", "a"]));
        press(&mut app, &[KeyCode::Char('r')]);
        assert_eq!(order(&app), ["a", "b"]);
        press(&mut app, &[KeyCode::Char('r'), KeyCode::Down, KeyCode::Down, KeyCode::Enter]);
        assert_eq!(app.view, View::Stream("a".into()), "the last of two");
        press(&mut app, &[KeyCode::Esc, KeyCode::Up, KeyCode::Enter]);
        assert_eq!(app.view, View::Stream("b".into()));
        press(&mut app, &[KeyCode::Char('g')]);
        assert_eq!(app.view, View::Groups);
        press(&mut app, &[KeyCode::Char('g'), KeyCode::Char('?')]);
        assert!(app.help && app.view == View::Streams);
        assert_eq!(press(&mut app, &[KeyCode::Enter]), Flow::Go);
        assert!(!app.help && app.view == View::Streams, "any key closes the help and does no more");
        (0..6).for_each(|_| assert_eq!(press(&mut app, &[KeyCode::Char('s')]), Flow::Go));
        assert_eq!(app.sort, Sort::Incoming, "all around");
        assert_eq!(press(&mut app, &[KeyCode::Char('q')]), Flow::Quit);
        assert_eq!(app.press(KeyCode::Char('c'), KeyModifiers::CONTROL), Flow::Quit);
    }

    #[test]
    fn a_broker_that_is_gone_leaves_what_was_seen_and_comes_back() {
        let mut app = App::new("u".into());
        app.take(Err("refused".into()), 0);
        assert_eq!((&app.state, app.model.streams.len()), (&State::Gone("refused".into()), 0));
        assert_eq!(press(&mut app, &[KeyCode::Enter, KeyCode::Down]), Flow::Go, "nothing is there to open");
        app.take(Ok(sample(10, 0)), 1_000);
        app.take(Err("refused".into()), 2_000);
        assert_eq!((&app.state, app.model.streams.len()), (&State::Gone("refused".into()), 2));
        app.take(Ok(sample(14, 4_000)), 5_000);
        assert_eq!((&app.state, app.model.streams["b"].in_bytes), (&State::Watching, Some(1_000.0)));
        app.take(Ok(sample(1, 8_000)), 6_000);
        assert_eq!((&app.state, app.model.streams["b"].in_bytes), (&State::Restarted, None));
    }
}
