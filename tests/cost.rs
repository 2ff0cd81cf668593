//! What a request costs, counted in what does not depend on the clock: allocations, bytes allocated (a copy of records
//! needs somewhere to go) and writes to the store. The bounds lie a little above what was counted when they were written
//! down; a change that exceeds one has made the hot path dearer.
//!
//! Where valgrind is installed, the instructions of a request are counted as well, in processes of their own; in a release
//! build, as others say nothing of it.
//!
//! One test, alone in its process: the counters are the process's.

#[path = "common/frame.rs"]
mod frame;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anabranch::clock::Clock;
use anabranch::config::{Config, HostPort};
use anabranch::model::batch::{self, Codec, Compressor, Options, Record};
use anabranch::server::Server;
use anabranch::store::memory::MemoryStore;
use anabranch::store::{Batch, Family, Figures, Page, Scan, Store, StoreError, Volume};
use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{BrokerId, CreateTopicsRequest, FetchRequest, ProduceRequest};
use kafka_protocol::protocol::Request;

use frame::{frame, topic};

const NOW_MS: i64 = 1_700_000_000_000;
const TOPIC: &str = "costs";
const PRODUCE: i16 = 12;
const FETCH: i16 = 12;
const CREATE_TOPICS: i16 = 7;
/// Requests before counting: what grows once (buffers, tables) has grown.
const WARM: u64 = 200;
const COUNTED: u64 = 500;
/// Of a produce, whatever is in its batch.
const PRODUCE_ALLOCATIONS: f64 = 26.0;
/// Bytes allocated for a byte of records.
const PRODUCE_COPIES: f64 = 1.15;
const FETCH_ALLOCATIONS: f64 = 100.0;
/// Instructions of a produce of 100 KiB and of a fetch of 1 MiB, client and store in memory included.
/// Where memory is copied by `rep movsb`, each byte counts as one.
const PRODUCE_INSTRUCTIONS: f64 = 430_000.0;
const FETCH_INSTRUCTIONS: f64 = 1_350_000.0;
/// What a process under callgrind is asked for: how many produces and how many fetches.
const REQUESTS: &str = "ANABRANCH_COST_REQUESTS";

/// Counts what every thread but the client's asks for.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED_BYTES: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_CLIENT: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: usize) {
    // A thread that is ending has no such cell any more; it is none of the server's hot ones.
    if IS_CLIENT.try_with(Cell::get).unwrap_or(true) {
        return;
    }
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    ALLOCATED_BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        unsafe { System.dealloc(old, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The store in memory, with its writes counted.
#[derive(Default)]
struct Counted {
    inner: MemoryStore,
    commits: AtomicU64,
    writes: AtomicU64,
    written_bytes: AtomicU64,
}

impl Store for Counted {
    fn commit(&self, batch: &Batch, sync: bool) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.writes.fetch_add(batch.ops.len() as u64, Ordering::Relaxed);
        self.written_bytes.fetch_add(batch.log_bytes() as u64, Ordering::Relaxed);
        self.inner.commit(batch, sync)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.inner.get(family, key)
    }

    fn scan(&self, scan: &Scan) -> Result<Page, StoreError> {
        self.inner.scan(scan)
    }

    fn epoch_bytes_max(&self) -> usize {
        self.inner.epoch_bytes_max()
    }

    fn epoch_is_full(&self, epoch_bytes: usize) -> bool {
        self.inner.epoch_is_full(epoch_bytes)
    }

    fn roll(&self) -> Result<(), StoreError> {
        self.inner.roll()
    }

    fn drop_range(&self, from: &[u8], to: &[u8]) -> Result<(), StoreError> {
        self.inner.drop_range(from, to)
    }

    fn figures(&self) -> Figures {
        self.inner.figures()
    }

    fn volume(&self) -> Option<Volume> {
        self.inner.volume()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

/// Of one request, on average.
#[derive(Debug)]
struct Cost {
    allocations: f64,
    allocated_bytes: f64,
    commits: f64,
    writes: f64,
}

struct Client {
    socket: TcpStream,
    store: Arc<Counted>,
}

impl Client {
    fn connect(address: SocketAddr, store: Arc<Counted>) -> Client {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        Client { socket, store }
    }

    /// The body of the answer, its header left in.
    fn call<R: Request>(&mut self, request: &R, version: i16) -> Bytes {
        self.socket.write_all(&frame(request, version, 1)).unwrap();
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.socket.read_exact(&mut answer).unwrap();
        answer.into()
    }

    fn cost<R: Request>(&mut self, request: &R, version: i16) -> Cost {
        for _ in 0..WARM {
            self.call(request, version);
        }
        let now = |store: &Counted| {
            [&ALLOCATIONS, &ALLOCATED_BYTES, &store.commits, &store.writes]
                .map(|counter| counter.load(Ordering::Relaxed))
        };
        let before = now(&self.store);
        for _ in 0..COUNTED {
            self.call(request, version);
        }
        let after = now(&self.store);
        let of = |at: usize| (after[at] - before[at]) as f64 / COUNTED as f64;
        Cost { allocations: of(0), allocated_bytes: of(1), commits: of(2), writes: of(3) }
    }
}

fn start() -> Client {
    let mut config = Config::default();
    config.kafka_addr[0].bind.port = 0;
    config.http_addr = HostPort { host: "127.0.0.1".into(), port: 0 };
    let store = Arc::new(Counted::default());
    let (told, address) = std::sync::mpsc::channel();
    let serving = store.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::start_on(config, Clock::manual(NOW_MS), serving).await.unwrap();
            told.send(server.kafka_addrs()[0]).unwrap();
            // Until the process ends.
            std::future::pending::<()>().await;
        });
    });
    Client::connect(address.recv().unwrap(), store)
}

fn produce(records: usize, record_bytes: usize) -> ProduceRequest {
    let record = |offset| Record {
        offset,
        timestamp: NOW_MS,
        key: None,
        value: Some(vec![b'x'; record_bytes].into()),
        headers: Vec::new(),
    };
    let records: Vec<_> = (0..records as i64).map(record).collect();
    let batch = batch::build(&records, &Options { compressor: Compressor::of(Codec::None), producer: None }).unwrap();
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(batch));
    let topic = TopicProduceData::default().with_name(topic(TOPIC)).with_partition_data(vec![partition]);
    ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic])
}

fn fetch(offset: i64) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(0)
        .with_fetch_offset(offset)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic(topic(TOPIC)).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// A client of a server that has the topic.
fn ready() -> Client {
    let mut client = start();
    let made = CreatableTopic::default().with_name(topic(TOPIC)).with_num_partitions(1).with_replication_factor(1);
    client.call(&CreateTopicsRequest::default().with_timeout_ms(30_000).with_topics(vec![made]), CREATE_TOPICS);
    client
}

/// Instructions of a whole process that makes so many requests. None where there is no valgrind.
fn instructions(produces: u64, fetches: u64) -> Option<u64> {
    let folder = tempfile::tempdir().unwrap();
    let mut out = std::ffi::OsString::from("--callgrind-out-file=");
    out.push(folder.path().join("out"));
    let run = Command::new("valgrind")
        .args(["--tool=callgrind".into(), out])
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "some_requests"])
        .env(REQUESTS, format!("{produces},{fetches}"))
        .output()
        .ok()?;
    let told = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    Some(collected.unwrap_or_else(|| panic!("{told}")).1.trim().parse().unwrap())
}

/// Not a test: what runs under callgrind.
#[test]
#[ignore = "run by requests_cost_no_more_than_they_did"]
fn some_requests() {
    let Ok(asked) = std::env::var(REQUESTS) else { return };
    let counts: Vec<u64> = asked.split(',').map(|count| count.parse().unwrap()).collect();
    let mut client = ready();
    let (produce, fetch) = (produce(100, 1024), fetch(0));
    (0..counts[0]).for_each(|_| drop(client.call(&produce, PRODUCE)));
    (0..counts[1]).for_each(|_| drop(client.call(&fetch, FETCH)));
}

fn assert_instructions() {
    if cfg!(debug_assertions) {
        return;
    }
    // What comes before the first request and after the last is in both and falls out.
    let Some(few) = instructions(10, 10) else { return println!("no valgrind: instructions are not counted") };
    let of = |produces, fetches, more| (instructions(produces, fetches).unwrap() - few) as f64 / f64::from(more);
    let (produce, fetch) = (of(110, 10, 100), of(10, 110, 100));
    println!("instructions: {produce} of a produce, {fetch} of a fetch");
    assert!(produce <= PRODUCE_INSTRUCTIONS, "{produce}");
    assert!(fetch <= FETCH_INSTRUCTIONS, "{fetch}");
}

#[test]
fn requests_cost_no_more_than_they_did() {
    IS_CLIENT.set(true);
    let mut client = ready();

    let small = client.cost(&produce(1, 100), PRODUCE);
    println!("a batch of one record: {small:?}");
    let large = client.cost(&produce(100, 1024), PRODUCE);
    println!("a batch of 100 records, 100 KiB: {large:?}");
    assert_eq!((small.commits, small.writes), (1.0, 1.0), "one write in one commit for a request that comes alone");
    // An epoch's end, after some megabytes, costs a commit and an entry in the index.
    assert!(large.commits <= 1.15 && large.writes <= 1.4, "{large:?}");
    // Nothing is looked at record by record that has to be allocated.
    assert!(large.allocations <= small.allocations + 5.0, "{large:?} beside {small:?}");
    assert!(small.allocations <= PRODUCE_ALLOCATIONS, "{small:?}");
    // One copy: from the socket's buffer to the value that the store and the tail share.
    let payload = 100.0 * 1024.0;
    assert!(large.allocated_bytes <= PRODUCE_COPIES * payload, "{} bytes for {payload}", large.allocated_bytes);

    let end = WARM as i64 + COUNTED as i64;
    let one = client.cost(&fetch(end - 1), FETCH);
    println!("a fetch of many batches: {one:?}");
    assert_eq!((one.commits, one.writes), (0.0, 0.0));
    let newest = end + (end - 1) * 100;
    let tail = client.cost(&fetch(newest), FETCH);
    println!("a fetch of the newest batch: {tail:?}");
    assert!(tail.allocations <= FETCH_ALLOCATIONS, "{tail:?}");
    // The batch itself is shared with the log's tail, not copied.
    assert!(tail.allocated_bytes <= 16_384.0, "{tail:?}");
    assert_instructions();
}
