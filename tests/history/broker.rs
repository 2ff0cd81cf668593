//! The broker under test, and what is done to it: the real binary, or another one that a command controls.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::history::{Answer, Call, Recorder};
use crate::kinesis;
use crate::names::{Names, TOPICS};
use crate::process::Process;
use crate::random::Random;
use crate::wire::{Address, Doors};

/// Small, so that memtables are flushed and epochs step under the load of this test.
/// No limits: they are another test's.
const SETTINGS: [&str; 8] =
    ["--memory", "16MiB", "--control-rates", "false", "--state-delay", "0", "--kinesis-limits", "off"];

enum Kind {
    Ours {
        process: Option<Process>,
        folder: TempDir,
    },
    /// `control kill`, `term`, `start`, `pause` and `resume` do what they say and return when it is done.
    Other {
        control: String,
        address: SocketAddr,
    },
}

pub struct Broker {
    kind: Kind,
    address: watch::Sender<Option<Doors>>,
    recorder: Recorder,
    copy: Option<TempDir>,
}

impl Broker {
    pub fn start(recorder: &Recorder) -> Broker {
        let (address, _) = watch::channel(None);
        let kind = match (std::env::var("ANABRANCH_HISTORY_BROKER"), std::env::var("ANABRANCH_HISTORY_CONTROL")) {
            (Ok(address), Ok(control)) => Kind::Other { control, address: address.parse().unwrap() },
            _ => Kind::Ours { process: None, folder: tempfile::tempdir().unwrap() },
        };
        let mut broker = Broker { kind, address, recorder: recorder.clone(), copy: None };
        broker.up();
        broker
    }

    pub fn address(&self) -> Address {
        self.address.subscribe()
    }

    fn up(&mut self) {
        let address = match &mut self.kind {
            Kind::Ours { process, folder } => {
                let started = block_in_place(|| Process::start(folder.path(), &SETTINGS));
                let process = process.insert(started);
                Doors { kafka: process.kafka, http: Some(process.http) }
            }
            Kind::Other { control, address } => {
                run(control, "start");
                Doors { kafka: *address, http: None }
            }
        };
        self.recorder.note("started");
        self.address.send_replace(Some(address));
    }

    /// Nobody connects to its port from here on: it may belong to somebody else soon.
    fn down(&mut self, how: &str) {
        self.address.send_replace(None);
        self.recorder.note(how);
        match (&mut self.kind, how) {
            (Kind::Ours { process: Some(process), .. }, "killed") => process.kill(),
            (Kind::Ours { process: Some(process), .. }, _) => {
                let status = block_in_place(|| process.terminate());
                assert_eq!(status.code(), Some(0), "the end after SIGTERM");
            }
            (Kind::Ours { process: None, .. }, _) => {}
            (Kind::Other { control, .. }, "killed") => run(control, "kill"),
            (Kind::Other { control, .. }, _) => run(control, "term"),
        }
    }

    fn signal(&mut self, name: &str, signal: i32) {
        match &self.kind {
            // SAFETY: a signal to a process that is ours and has not been waited for.
            Kind::Ours { process: Some(process), .. } => unsafe {
                assert_eq!(libc::kill(process.id() as i32, signal), 0);
            },
            Kind::Ours { process: None, .. } => {}
            Kind::Other { control, .. } => run(control, name),
        }
    }

    pub async fn kill(&mut self, down: Duration) {
        self.down("killed");
        sleep(down).await;
        self.up();
    }

    pub async fn restart(&mut self, down: Duration) {
        self.down("terminated");
        sleep(down).await;
        self.up();
    }

    pub async fn pause(&mut self, length: Duration) {
        self.recorder.note(format!("paused for {} ms", length.as_millis()));
        self.signal("pause", libc::SIGSTOP);
        sleep(length).await;
        self.signal("resume", libc::SIGCONT);
        self.recorder.note("resumed");
    }

    /// Through the other door: half of a topic's partitions go to sleep, or wake. What is sent to one that sleeps is taken
    /// by the one that has absorbed it.
    async fn reshard(&mut self, names: &Names, worker: u32, random: &mut Random) {
        if let Kind::Other { .. } = self.kind {
            return;
        }
        let topic = random.below(TOPICS.len() as u64) as u8;
        let all = TOPICS[usize::from(topic)] as u32;
        let shards = if random.percent(50) { all } else { all / 2 };
        let pending = self.recorder.invoke(worker, Call::Reshard { topic, shards });
        let body = json!({
            "StreamName": names.topic(topic).as_str(),
            "TargetShardCount": shards,
            "ScalingType": "UNIFORM_SCALING",
        });
        match kinesis::call(&self.address(), "UpdateShardCount", &body).await {
            Some((200, _)) => pending.ok(Answer::Done),
            // It has as many already.
            Some((400, why)) => pending.fail(why.to_string()),
            Some((status, why)) => panic!("resharding is answered {status}: {why}"),
            None => pending.unknown("no answer"),
        }
    }

    /// One of these after a while, by chance. A broker that takes long to start is given more time in between.
    pub async fn harm(&mut self, names: &Names, worker: u32, random: &mut Random) {
        let rest_ms = match self.kind {
            Kind::Ours { .. } => 200 + random.below(1_500),
            Kind::Other { .. } => 4_000 + random.below(8_000),
        };
        sleep(Duration::from_millis(rest_ms)).await;
        let down = Duration::from_millis(random.below(400));
        match random.below(14) {
            10.. => self.reshard(names, worker, random).await,
            0..4 => self.kill(down).await,
            4..6 => self.restart(down).await,
            _ => self.pause(Duration::from_millis(100 + random.below(2_400))).await,
        }
    }

    /// Keeps what the folder holds now.
    pub async fn remember(&mut self) {
        self.down("killed");
        if let Kind::Ours { folder, .. } = &self.kind {
            let copy = tempfile::tempdir().unwrap();
            copy_files(folder.path(), copy.path());
            self.copy = Some(copy);
        }
        self.recorder.note("copied");
        self.up();
    }

    /// A disk that forgets: puts the copy in the folder's place.
    pub async fn forget(&mut self) {
        self.down("killed");
        if let Kind::Ours { folder, .. } = &mut self.kind {
            *folder = self.copy.take().unwrap();
        }
        self.recorder.note("put the copy in place");
        self.up();
    }
}

fn run(control: &str, what: &str) {
    let status = block_in_place(|| Command::new(control).arg(what).status()).unwrap();
    assert!(status.success(), "{control} {what}: {status}");
}

fn copy_files(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if path.is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_files(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}
