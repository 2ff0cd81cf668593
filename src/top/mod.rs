//! `anabranch top`: a running broker watched in a terminal, by what its `/metrics` tell. Called by `main`.
//!
//! - `fetch`: asks for the metrics
//! - `sample`: reads them; `model`: rates and rows out of two of them; both pure
//! - `app`: what is shown, and what keys do; pure
//! - `render`: draws it
//!
//! A broker that is gone is said to be, over what was seen last, and is asked again with every look.

use std::io::{self, IsTerminal, Write};

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::layout::Rect;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::config::Top;

mod app;
mod fetch;
mod model;
mod render;
mod sample;

use app::{App, Flow};
use fetch::{FetchError, fetch};

/// Keys that were pressed and not looked at yet.
const KEYS_MAX: usize = 64;
/// Columns of a frame that is printed.
const PRINTED_WIDTH: u16 = 140;

#[derive(Debug, thiserror::Error)]
pub enum TopError {
    #[error("stdout is no terminal; --once prints a frame to it")]
    NoTerminal,
    #[error("{url}: {error}")]
    Fetch { url: String, error: FetchError },
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
}

pub async fn run(options: &Top, clock: Clock) -> Result<(), TopError> {
    if options.once {
        return once(options, &clock).await;
    }
    if !io::stdout().is_terminal() {
        return Err(TopError::NoTerminal);
    }
    let mut terminal = ratatui::try_init()?;
    let outcome = watch(&mut terminal, options, &clock).await;
    ratatui::try_restore()?;
    outcome
}

/// Two looks, so that there are rates, and everything in one frame.
async fn once(options: &Top, clock: &Clock) -> Result<(), TopError> {
    let mut app = App::new(url(options));
    for look in 0..2 {
        if look > 0 {
            clock.sleep_ms(options.interval_ms).await;
        }
        let sample = fetch(&options.address, clock).await;
        let sample = sample.map_err(|error| TopError::Fetch { url: url(options), error })?;
        app.take(Ok(sample), clock.tick_ms());
    }
    let frame = printed(&app, PRINTED_WIDTH);
    let mut stdout = io::stdout().lock();
    stdout.write_all(frame.as_bytes()).and_then(|()| stdout.flush())?;
    Ok(())
}

/// All of it as lines of text.
fn printed(app: &App, width: u16) -> String {
    let area = Rect::new(0, 0, width, render::whole_height(app));
    let mut buffer = Buffer::empty(area);
    render::whole(app, area, &mut buffer);
    let line = |y: u16| {
        let cells: String = (0..width).filter_map(|x| buffer.cell((x, y))).map(|cell| cell.symbol()).collect();
        format!("{}\n", cells.trim_end())
    };
    let text: String = (0..area.height).map(line).collect();
    format!("{}\n", text.trim_end())
}

async fn watch(terminal: &mut ratatui::DefaultTerminal, options: &Top, clock: &Clock) -> Result<(), TopError> {
    let mut keys = keys()?;
    let mut app = App::new(url(options));
    let look = |at: i64| async move {
        clock.sleep_until(at).await;
        fetch(&options.address, clock).await
    };
    let mut looking = Box::pin(look(0));
    loop {
        terminal.draw(|frame| {
            let area = frame.area();
            render::screen(&mut app, area, frame.buffer_mut());
        })?;
        tokio::select! {
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if app.press(key.code, key.modifiers) == Flow::Quit {
                        return Ok(());
                    }
                }
                // The next turn draws at the new size.
                Some(_) => {}
                None => return Ok(()),
            },
            sample = &mut looking => {
                app.take(sample.map_err(|error| error.to_string()), clock.tick_ms());
                looking = Box::pin(look(clock.tick_ms().saturating_add(options.interval_ms)));
            }
        }
    }
}

/// What is typed. The thread waits for the terminal, and ends with the process.
fn keys() -> io::Result<mpsc::Receiver<Event>> {
    let (sender, events) = mpsc::channel(KEYS_MAX);
    std::thread::Builder::new().name("keys".into()).spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(events)
}

fn url(options: &Top) -> String {
    format!("http://{}", options.address)
}
