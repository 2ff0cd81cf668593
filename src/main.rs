//! The command line: reads the settings, starts the server, says on one screen what is served where, and stops it on a
//! signal. `anabranch inspect` looks at a folder instead, `anabranch top` at a running broker.
//!
//! Exit codes of serving: 0 after a clean stop, 1 when the server cannot start or stop, 2 for settings that are refused, 130 after a
//! second signal.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, Weak};

use anabranch::broker::Broker;
use anabranch::clock::Clock;
use anabranch::config::{Config, Durability, HostPort, Inspect, Invocation, Listener, LogFormat, Top};
use anabranch::inspect::{self, Outcome};
use anabranch::server::Server;
use anabranch::top;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// For what Rust allocates; RocksDB has the C library's. Under load the pages of freed buffers are used again within
/// milliseconds. Its default, which is to return what nobody wanted for a second, therefore costs a busy broker nothing; for
/// an idle one [`give_back`] sees to it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads that read from the disk: each keeps some freed memory for itself, so hundreds of readers must not have
/// hundreds of them.
const BLOCKING_THREADS_MAX: usize = 16;
/// Arenas of the C library's allocator, which RocksDB's threads share: one allocates the memtables that another frees.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS_MAX: libc::c_int = 2;
/// Milliseconds between two looks for memory to give back.
const GIVE_BACK_EVERY_MS: i64 = 5_000;

unsafe extern "C" {
    /// Of mimalloc: gives back to the system what was free for long enough.
    fn mi_collect(force: bool);
}

fn main() -> ExitCode {
    let config = match Invocation::load(std::env::args_os()) {
        Ok(Invocation::Serve(config)) => *config,
        Ok(Invocation::Inspect(options)) => return inspected(&options),
        Ok(Invocation::Top(options)) => return watched(&options),
        Err(error) => return ExitCode::from(error.report()),
    };
    start_logging(&config);
    keep_memory_small();
    raise_file_limit();
    let served = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("anabranch")
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            let served = runtime.block_on(serve(config));
            // The store is closed; a read that still hangs on the disk must not hold up the end.
            runtime.shutdown_background();
            served
        });
    if let Err(error) = &served {
        eprintln!("anabranch: {error}");
    }
    exit(i32::from(served.is_err()))
}

fn inspected(options: &Inspect) -> ExitCode {
    let outcome = inspect::run(options, &mut std::io::BufWriter::new(std::io::stdout().lock()));
    let outcome = outcome.unwrap_or_else(|error| {
        // Who reads this has seen enough (`| head`): nothing to tell.
        if !error.is_broken_pipe() {
            eprintln!("anabranch: {error}");
        }
        Outcome::Unreadable
    });
    ExitCode::from(outcome as u8)
}

fn watched(options: &Top) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(top::run(options, Clock::system())).map_err(|error| error.to_string()));
    if let Err(error) = &outcome {
        eprintln!("anabranch: {error}");
    }
    // A thread may still wait for a key.
    exit(i32::from(outcome.is_err()))
}

/// Ends the process at once. What has to be kept is on its way to the disk by now, and a thread may still be at work in
/// the store (opening it, or reading): the static destructors that a return from `main` runs would abort under it.
fn exit(code: i32) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(code) }
}

/// From start to clean stop.
async fn serve(config: Config) -> Result<(), String> {
    // Signals are caught before anything is opened, so that none can cut a start short half way.
    let mut signals = Signals::new().map_err(|error| format!("signals cannot be caught: {error}"))?;
    let server = tokio::select! {
        started = Server::start(config.clone(), Clock::system()) => started.map_err(|error| error.to_string())?,
        () = signals.next() => return Ok(()),
    };
    tokio::spawn(give_back(server.broker().clock().clone(), Arc::downgrade(server.broker())));
    say(&banner(&config, &server.kafka_addrs(), server.http_addr()));
    signals.next().await;
    say("Stopping; a second signal exits at once.\n");
    tokio::select! {
        stopped = server.shutdown() => stopped.map_err(|error| error.to_string()),
        () = signals.next() => exit(130),
    }
}

/// How the system and the C library are to treat this process's memory. What they refuse stays as it was.
fn keep_memory_small() {
    #[cfg(target_os = "linux")]
    // SAFETY: prctl takes numbers only here. Where the system hands out memory by 2 MiB, a few touched pages of each arena
    // and stack would take several times what is in them.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: called before any other thread is started.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
    }
}

/// Once nothing is written any more, what the load has left behind goes back to the system: the allocators keep it until
/// they are asked, in case it goes on.
async fn give_back(clock: Clock, broker: Weak<Broker>) {
    let (mut written, mut given_at) = (None, None);
    while let Some(now) = broker.upgrade().map(|broker| broker.position()) {
        // SAFETY: may be called at any time, from any thread.
        unsafe { mi_collect(false) };
        let before = written.replace(now);
        if before == written && given_at != written {
            given_at = written;
            #[cfg(all(target_os = "linux", target_env = "gnu"))]
            // SAFETY: may be called at any time, from any thread.
            unsafe {
                libc::malloc_trim(0)
            };
        }
        clock.sleep_ms(GIVE_BACK_EVERY_MS).await;
    }
}

/// SIGINT and SIGTERM.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Writes to stdout; that nobody reads it is no reason to stop serving.
fn say(text: &str) {
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// What is served where, on one screen. `kafka` are the addresses bound, in the order of `config.kafka_addr`.
fn banner(config: &Config, kafka: &[SocketAddr], http: SocketAddr) -> String {
    let mut text = format!("Anabranch {}\n\n", env!("CARGO_PKG_VERSION"));
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {label:<10} {value}");
    };
    for (index, (listener, bound)) in config.kafka_addr.iter().zip(kafka).enumerate() {
        line(if index == 0 { "Kafka" } else { "" }, kafka_line(listener, *bound));
    }
    line("Kinesis", format!("http://{http} (also /health and /metrics)"));
    let folder = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    line("Data", folder.display().to_string());
    let survives = match config.durability {
        Durability::Os => "acknowledged records survive a crash of this process",
        Durability::Sync => "acknowledged records survive a crash of this machine",
    };
    line("Durability", format!("{}: {survives}", config.durability));
    line("Memory", format!("{} MiB at most, taken as data comes", config.memory >> 20));
    line("Stop", "Ctrl-C or SIGTERM".to_owned());
    if let (Some(listener), Some(bound)) = (config.kafka_addr.first(), kafka.first()) {
        let address = reachable(listener, *bound);
        line("Try", format!("echo hello | kcat -b {address} -P -t greetings"));
        line("", format!("kcat -b {address} -C -t greetings -e"));
        line("", format!("aws --endpoint-url http://{http} kinesis list-streams"));
    }
    text.push('\n');
    text
}

fn kafka_line(listener: &Listener, bound: SocketAddr) -> String {
    let advertised = listener.advertise(bound);
    let name = if listener.name == "PLAINTEXT" { String::new() } else { format!(" ({})", listener.name) };
    match listener.advertised {
        Some(_) => format!("{bound}{name}, clients are told {advertised}"),
        None => format!("{bound}{name}"),
    }
}

/// Where a command typed on this machine reaches the listener.
fn reachable(listener: &Listener, bound: SocketAddr) -> HostPort {
    match bound.ip().is_unspecified() {
        true => HostPort { host: "localhost".to_owned(), port: bound.port() },
        false => HostPort { host: listener.bind.host.clone(), port: bound.port() },
    }
}

fn start_logging(config: &Config) {
    let colours = std::io::stderr().is_terminal();
    let logs = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(&config.log_level))
        .with_writer(std::io::stderr)
        .with_ansi(colours);
    match config.log_format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
}

/// Every connection and every file of the store is a descriptor, and the customary soft limit of 1,024 is a tenth of the
/// connections that are to work.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls only read or write the struct, which outlives them.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if !raised {
        let error = std::io::Error::last_os_error();
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Config {
        let args = std::iter::once("anabranch").chain(args.iter().copied()).map(Into::into);
        Config::from_sources(args, |_| None).unwrap()
    }

    #[test]
    fn the_banner_fits_a_screen_and_says_what_is_served_where() {
        let config = config(&[
            "--kafka-addr",
            "127.0.0.1:0,OUT=0.0.0.0:9093@broker.example:19093",
            "--data-dir",
            "/var/lib/anabranch",
            "--durability",
            "sync",
        ]);
        let bound = ["127.0.0.1:40001".parse().unwrap(), "0.0.0.0:9093".parse().unwrap()];
        let text = banner(&config, &bound, "127.0.0.1:4567".parse().unwrap());
        for said in [
            "  Kafka      127.0.0.1:40001\n",
            "             0.0.0.0:9093 (OUT), clients are told broker.example:19093\n",
            "  Kinesis    http://127.0.0.1:4567 (also /health and /metrics)\n",
            "  Data       /var/lib/anabranch\n",
            "survive a crash of this machine\n",
            "512 MiB",
            "kcat -b 127.0.0.1:40001 -C -t greetings -e\n",
        ] {
            assert!(text.contains(said), "{said:?} is not in\n{text}");
        }
        assert!(text.lines().count() <= 24 && text.lines().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn the_first_command_reaches_a_listener_on_every_interface() {
        let config = config(&["--kafka-addr", "0.0.0.0:9092@broker.example:9092"]);
        let text = banner(&config, &["0.0.0.0:9092".parse().unwrap()], "127.0.0.1:4567".parse().unwrap());
        assert!(text.contains("kcat -b localhost:9092 "), "{text}");
    }
}
