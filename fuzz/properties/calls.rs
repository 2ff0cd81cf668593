//! What holds for any bytes that come as a call of the Kinesis API: they are answered, well or with an error of the
//! client's, in no time of the server's clock; nothing panics; other callers do not notice. Panics where that does not
//! hold.
//!
//! An input is a line and a body: `PutRecords J` says the operation and whether the body is JSON (`J`) or CBOR. One door on
//! a store in memory serves all inputs of a process, so that what one leaves behind is there for the next.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use anabranch::audit::Audit;
use anabranch::broker::{Broker, BrokerOptions};
use anabranch::clock::Clock;
use anabranch::config::{Config, MasterKey};
use anabranch::http::codec::is_document;
use anabranch::http::{Call, Event, Format, Reply};
use anabranch::kinesis::Door;
use anabranch::kinesis::dispatch::dispatch;
use anabranch::metrics::Metrics;
use anabranch::model::attributes::LimitsPolicy;
use anabranch::model::settings::BrokerValues;
use anabranch::security::Principal;
use anabranch::store::memory::MemoryStore;

use super::bed::Panics;

/// What the threads of the door are called.
const THREADS: &str = "calls-door";
/// For busy machines.
const PATIENCE: Duration = Duration::from_secs(30);
const ACCOUNT: &str = "000000000000";

static BED: LazyLock<Mutex<Bed>> = LazyLock::new(|| Mutex::new(Bed::new()));

struct Bed {
    door: Arc<Door>,
    clock: Clock,
    runtime: tokio::runtime::Runtime,
    panics: Panics,
}

pub fn holds(data: &[u8]) {
    let bed = BED.lock().unwrap_or_else(PoisonError::into_inner);
    let (line, body) = data.iter().position(|byte| *byte == b'\n').map_or((data, &data[..0]), |end| data.split_at(end));
    let line = String::from_utf8_lossy(line);
    let (operation, format) = line.split_once(' ').unwrap_or((&line, "J"));
    let format = if format == "J" { Format::Json } else { Format::Cbor };
    let body = body.strip_prefix(b"\n").unwrap_or(body);
    let reply = bed.call(operation, format, body);
    bed.check(format, reply);
    match bed.call("DescribeAccountSettings", Format::Json, b"{}") {
        Reply::Whole(Ok(_)) => {}
        other => panic!("others notice: {other:?}"),
    }
    bed.clock.advance(1);
    bed.panics.assert_none();
}

impl Bed {
    fn new() -> Bed {
        let (runtime, panics) = Panics::watched_on(THREADS);
        let clock = Clock::manual(1_700_000_000_000);
        let master_keys = vec![MasterKey { id: "key".into(), secret: [1; 32], disabled: false }];
        let config = Config {
            state_delay: 0,
            control_rates: false,
            kinesis_limits: LimitsPolicy::Off,
            shards_max: 200,
            account_id: ACCOUNT.to_owned(),
            ..Config::default()
        };
        let options = BrokerOptions {
            sync: false,
            tail_bytes_max: 1 << 20,
            compaction_bytes_max: 1 << 20,
            values: BrokerValues::default(),
            master_keys,
        };
        // Opening starts tasks.
        let entered = runtime.enter();
        let metrics = Metrics::new(10);
        let broker =
            Broker::open(Arc::new(MemoryStore::new()), options, clock.clone(), metrics.clone()).expect("a broker");
        let (audit, _) = Audit::open(&config, clock.clone(), metrics).expect("no audit log");
        let door = Door::open(broker, Arc::new(config), audit).expect("a door");
        drop(entered);
        Bed { door, clock, runtime, panics }
    }

    fn call(&self, operation: &str, format: Format, body: &[u8]) -> Reply {
        let call = Call {
            operation: operation.to_owned(),
            format,
            body: body.to_vec().into(),
            principal: Principal::root(ACCOUNT),
            peer: ([127, 0, 0, 1], 50_000).into(),
            user_agent: None,
            request_id: self.clock.random_uuid(),
            trace: None,
        };
        let answered = async { tokio::time::timeout(PATIENCE, dispatch(self.door.clone(), call)).await };
        self.runtime.block_on(answered).unwrap_or_else(|_| panic!("{operation} is not answered"))
    }

    fn check(&self, format: Format, reply: Reply) {
        match reply {
            Reply::Whole(Ok(body)) => assert!(body.is_empty() || is_document(format, &body), "{body:02x?}"),
            Reply::Whole(Err(failure)) => {
                assert!((400..500).contains(&failure.status), "{failure:?}");
                assert!(is_document(format, &failure.body(format)), "{failure:?}");
            }
            Reply::Events(mut events) => {
                let first = async { tokio::time::timeout(PATIENCE, events.0.recv()).await };
                match self.runtime.block_on(first).expect("the first event comes at once") {
                    Some(Event::Message(bytes)) => assert!(is_document(format, body(&bytes)), "{bytes:02x?}"),
                    Some(Event::Exception(failure)) => assert!(failure.status < 500, "{failure:?}"),
                    None => {}
                }
            }
        }
    }
}

/// Of an event stream's message: it stands behind a prelude of 12 bytes and the headers, and before a checksum.
fn body(message: &[u8]) -> &[u8] {
    let headers = u32::from_be_bytes(message[4..8].try_into().expect("a message has a prelude")) as usize;
    &message[12 + headers..message.len() - 4]
}
