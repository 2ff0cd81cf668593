//! What holds for any bytes that come as a frame: the server answers it or closes its connection, in bounded time by its
//! own clock, nothing in it panics, and other connections do not notice. Panics where that does not hold.
//!
//! One server in memory serves all inputs of a process, so that what one leaves behind is there for the next.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anabranch::clock::Clock;
use anabranch::config::{Config, HostPort};
use anabranch::server::Server;
use anabranch::store::memory::MemoryStore;

use super::bed::Panics;

/// What the threads of the server are called.
const THREADS: &str = "frames-server";
/// The server's clock moves this far whenever an answer is not there at once.
const STEP_MS: i64 = 60_000;
const PATIENCE: Duration = Duration::from_millis(5);
/// Waits of [`PATIENCE`]. A connection that nothing comes from is closed after ten minutes of the server's clock; the rest
/// is for busy machines.
const WAITS_MAX: usize = 2_000;

static BED: LazyLock<Mutex<Bed>> = LazyLock::new(|| Mutex::new(Bed::new()));

/// The server and the connection that inputs go over while it lives.
struct Bed {
    clock: Clock,
    address: SocketAddr,
    connection: Option<TcpStream>,
    /// Tells the answers of this file's own requests apart.
    next_id: i32,
    panics: Panics,
    _runtime: tokio::runtime::Runtime,
    _server: Server,
}

/// How a connection went on after a request.
enum Outcome {
    /// The id of an answer.
    Answered(i32),
    Closed,
}

pub fn holds(data: &[u8]) {
    let mut bed = BED.lock().unwrap_or_else(PoisonError::into_inner);
    let mut connection = match bed.connection.take() {
        Some(connection) => connection,
        None => bed.connect(),
    };
    let mut frame = (data.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(data);
    // It may be closed before all is written.
    let _ = connection.write_all(&frame);
    let own = bed.ask(&mut connection);
    loop {
        match bed.outcome(&mut connection) {
            Outcome::Answered(id) if id == own => {
                bed.connection = Some(connection);
                break;
            }
            Outcome::Answered(id) => assert_eq!(data.get(4..8), Some(&id.to_be_bytes()[..]), "the answer of nobody"),
            Outcome::Closed => {
                let mut next = bed.connect();
                let own = bed.ask(&mut next);
                assert!(matches!(bed.outcome(&mut next), Outcome::Answered(id) if id == own), "others notice");
                bed.connection = Some(next);
                break;
            }
        }
    }
    bed.panics.assert_none();
}

impl Bed {
    fn new() -> Bed {
        let (runtime, panics) = Panics::watched_on(THREADS);
        let mut config = Config { num_partitions: 2, ..Config::default() };
        config.kafka_addr[0].bind.port = 0;
        config.http_addr = HostPort { host: "127.0.0.1".into(), port: 0 };
        let clock = Clock::manual(1_700_000_000_000);
        let started = Server::start_on(config, clock.clone(), Arc::new(MemoryStore::new()));
        let server = runtime.block_on(started).expect("a server");
        let address = server.kafka_addrs()[0];
        Bed { clock, address, connection: None, next_id: i32::MIN, panics, _runtime: runtime, _server: server }
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(self.address).expect("the server accepts");
        connection.set_nodelay(true).expect("an option");
        connection.set_read_timeout(Some(PATIENCE)).expect("an option");
        connection
    }

    /// ApiVersions, version 0; its correlation id.
    fn ask(&mut self, connection: &mut TcpStream) -> i32 {
        self.next_id += 1;
        let mut request = vec![0, 0, 0, 10, 0, 18, 0, 0];
        request.extend_from_slice(&self.next_id.to_be_bytes());
        request.extend_from_slice(&(-1_i16).to_be_bytes());
        let _ = connection.write_all(&request);
        self.next_id
    }

    fn outcome(&self, connection: &mut TcpStream) -> Outcome {
        let mut head = [0; 4];
        if !self.read(connection, &mut head) {
            return Outcome::Closed;
        }
        let mut answer = vec![0; u32::from_be_bytes(head) as usize];
        assert!(self.read(connection, &mut answer), "an answer that is cut");
        let id = answer.first_chunk().expect("an answer has a correlation id");
        Outcome::Answered(i32::from_be_bytes(*id))
    }

    /// False when the connection was closed instead.
    fn read(&self, connection: &mut TcpStream, mut into: &mut [u8]) -> bool {
        let mut waits = 0;
        while !into.is_empty() {
            match connection.read(into) {
                Ok(0) => return false,
                Ok(read) => into = &mut std::mem::take(&mut into)[read..],
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    waits += 1;
                    assert!(waits < WAITS_MAX, "neither answered nor closed");
                    self.clock.advance(STEP_MS);
                }
                Err(_) => return false,
            }
        }
        true
    }
}
