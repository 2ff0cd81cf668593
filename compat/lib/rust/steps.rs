//! What the Rust clients' steps share: reporting, the records they send and how those are compared. Included
//! by path, needs only the standard library. The steps themselves are described in compat/README.md.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, exit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub const PARTITIONS: i32 = 4;
pub const WAIT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_secs(120);
pub const APART_MS: i64 = 1000;

/// Why a step did not end well.
#[derive(Debug)]
pub enum Stop {
    Failed(String),
    Skip(String),
}

pub type Outcome<T = ()> = Result<T, Stop>;

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Stop {
        Stop::Failed(error.to_string())
    }
}

pub fn fail<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Stop::Failed(reason.into()))
}

pub fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { fail(otherwise()) }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    pub timestamp: i64,
    pub partition: i32,
    pub offset: i64,
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}

/// The timestamp of the first record: an hour ago, to the second, so that a step's records are the same
/// whenever it asks for them.
pub fn first_timestamp() -> i64 {
    use std::sync::OnceLock;
    static FIRST: OnceLock<i64> = OnceLock::new();
    *FIRST.get_or_init(|| now_ms() / 1000 * 1000 - 3_600_000)
}

/// Records of every shape, spread over the partitions; the header `n` numbers them. Headers are in the order
/// of their names, because not every client keeps another.
pub fn records(count: usize, label: &str) -> Vec<Record> {
    let mut following = [0i64; PARTITIONS as usize];
    (0..count)
        .map(|n| {
            let partition = n % PARTITIONS as usize;
            let offset = following[partition];
            following[partition] += 1;
            let mut headers = vec![("n".to_owned(), format!("{label}{n}").into_bytes())];
            if n % 5 == 0 {
                headers.insert(0, ("empty".to_owned(), Vec::new()));
                headers.push(("z".to_owned(), vec![0, 255]));
            }
            Record {
                key: (n % 50 != 7).then(|| format!("{label}-{n}").into_bytes()),
                value: (n % 50 != 13).then(|| (0..n * 37 % 1500).map(|i| ((n * 7 + i) % 251) as u8).collect()),
                headers,
                timestamp: first_timestamp() + n as i64 * APART_MS,
                partition: partition as i32,
                offset,
            }
        })
        .collect()
}

fn in_places(records: &[Record]) -> BTreeMap<(i32, i64), &Record> {
    records.iter().map(|r| ((r.partition, r.offset), r)).collect()
}

/// That `got` is exactly what was sent, each at its offset, each once. `sent` is numbered from offset 0.
pub fn check_equal(sent: &[Record], got: &[Record]) -> Outcome {
    check(sent.len() == got.len(), || format!("sent {} records and read {}", sent.len(), got.len()))?;
    let (sent, got) = (in_places(sent), in_places(got));
    for (place, wanted) in sent {
        match got.get(&place) {
            Some(found) if *found == wanted => {}
            found => return fail(format!("at {place:?}: sent {wanted:?} and read {found:?}")),
        }
    }
    Ok(())
}

pub struct Steps {
    client: &'static str,
    run: String,
    failed: bool,
}

impl Steps {
    pub fn new(client: &'static str, version: &str) -> Steps {
        println!("version {version}");
        Steps { client, run: format!("{:x}-{:x}", now_ms(), std::process::id()), failed: false }
    }

    /// A name for a topic or a group that is new in every run.
    pub fn name(&self, what: &str) -> String {
        format!("{}-{what}-{}", self.client, self.run)
    }

    /// Runs one step and reports it. A step that takes too long is reported and ends the process: a thread
    /// that hangs in a client can't be stopped, and the runner reports the steps that are left.
    pub fn step(&mut self, name: &str, action: impl FnOnce() -> Outcome) {
        let done = Arc::new(AtomicBool::new(false));
        let (watched, step) = (done.clone(), name.to_owned());
        std::thread::spawn(move || {
            std::thread::sleep(STEP);
            if !watched.load(Ordering::SeqCst) {
                println!("FAIL {step}: not done within {} s", STEP.as_secs());
                exit(1);
            }
        });
        let outcome = catch_unwind(AssertUnwindSafe(action)).unwrap_or_else(|_| fail("panicked"));
        done.store(true, Ordering::SeqCst);
        match outcome {
            Ok(()) => println!("ok {name}"),
            Err(Stop::Skip(why)) => println!("skip {name}: {why}"),
            Err(Stop::Failed(why)) => {
                self.failed = true;
                let line: String = why.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(600).collect();
                println!("FAIL {name}: {line}");
            }
        }
    }

    pub fn failed(&self) -> bool {
        self.failed
    }

    pub fn end(self) -> ! {
        exit(i32::from(self.failed))
    }
}

pub fn bootstrap() -> String {
    std::env::var("BOOTSTRAP").unwrap_or_else(|_| {
        eprintln!("BOOTSTRAP is not set");
        exit(2)
    })
}

/// Kills the broker and waits until it is back.
pub fn restart() -> Outcome {
    let Ok(command) = std::env::var("RESTART") else {
        return Err(Stop::Skip("this broker can't be restarted".to_owned()));
    };
    let status = Command::new("sh").arg("-c").arg(format!("{command} kill")).status()?;
    check(status.success(), || "the broker did not come back".to_owned())
}

pub fn can_restart() -> Outcome {
    match std::env::var("RESTART") {
        Ok(_) => Ok(()),
        Err(_) => Err(Stop::Skip("this broker can't be restarted".to_owned())),
    }
}
