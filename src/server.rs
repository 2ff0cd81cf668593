//! Builds everything, binds, spawns, and shuts down in order: doors first, then what waits, then the log.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::audit::{self, Audit};
use crate::broker::ages::Ages;
use crate::broker::{Broker, BrokerOptions, CatalogError};
use crate::clock::Clock;
use crate::cloudwatch;
use crate::config::{Config, Durability, HostPort};
use crate::group::{ConsumerConfig, GroupSettings, Groups};
use crate::http::{self, Health, HttpState, Reset, Status};
use crate::kafka::budget::RequestBudget;
use crate::kafka::conn::Ending;
use crate::kafka::{Advertised, Client, Coordinators, Door, Quotas, Watchers, conn};
use crate::kinesis;
use crate::metrics::Metrics;
use crate::model::settings::BrokerValues;
use crate::reaper;
use crate::scaler;
use crate::security::Access;
use crate::share::{ShareSettings, Shares};
use crate::store::rocks::{OpenError, Released, RocksOptions, RocksStore};
use crate::store::{Store, StoreError};
use crate::traces::{self, Tracer};
use crate::txn::{Transactions, TxnSettings};

use collect::Collector;

mod collect;

/// Milliseconds between two attempts when the process is out of file descriptors.
const ACCEPT_RETRY_MS: i64 = 100;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}: {error}")]
    Bind { address: String, error: std::io::Error },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("what the data folder holds cannot be read: {0}")]
    Recover(#[from] StoreError),
    #[error(transparent)]
    Audit(#[from] audit::OpenError),
    #[error("a thread could not be started: {0}")]
    Thread(String),
}

/// A running broker. Dropping it without [`Server::shutdown`] is like a crash: nothing acknowledged is lost.
pub struct Server {
    kafka_addrs: Vec<SocketAddr>,
    http_addr: SocketAddr,
    broker: Arc<Broker>,
    audit: Arc<Audit>,
    tracer: Option<Arc<Tracer>>,
    stopping: watch::Sender<bool>,
    doors: Vec<JoinHandle<()>>,
    workers: JoinSet<()>,
    grace_ms: i64,
    /// The data folder, where this server has opened it.
    folder: Option<Released>,
}

impl Server {
    /// Opens the data folder and serves.
    pub async fn start(config: Config, clock: Clock) -> Result<Server, StartError> {
        let (dir, options) = (config.data_dir.clone(), RocksOptions { memory_bytes: config.memory_shares().store });
        let bound = Bound::bind(&config).await?;
        let store = tokio::task::spawn_blocking(move || RocksStore::open(&dir, options))
            .await
            .map_err(|error| StartError::Thread(error.to_string()))??;
        let folder = store.released();
        let server = Server::serve(config, clock, Arc::new(store), bound).await?;
        Ok(Server { folder, ..server })
    }

    /// The same on a store that is open already (tests: `store::memory`).
    pub async fn start_on(config: Config, clock: Clock, store: Arc<dyn Store>) -> Result<Server, StartError> {
        let bound = Bound::bind(&config).await?;
        Server::serve(config, clock, store, bound).await
    }

    async fn serve(config: Config, clock: Clock, store: Arc<dyn Store>, bound: Bound) -> Result<Server, StartError> {
        let config = Arc::new(config);
        let metrics = Metrics::new(config.metrics_label_max);
        let (tracer, exporter) = Tracer::open(&config, clock.clone(), metrics.clone()).unzip();
        let (audit, auditor) = Audit::open(&config, clock.clone(), metrics.clone())?;
        let kafka = bound.advertised(&config);
        let options = BrokerOptions {
            sync: config.durability == Durability::Sync,
            tail_bytes_max: config.memory_shares().tail,
            compaction_bytes_max: config.compaction_memory,
            values: broker_values(&config, &kafka),
            master_keys: config.master_keys.clone(),
        };
        let (broker, groups, transactions, shares, quotas, kinesis, cloudwatch) = {
            let (clock, metrics) = (clock.clone(), metrics.clone());
            let (config, audit) = (config.clone(), audit.clone());
            tokio::task::spawn_blocking(move || {
                let broker = Broker::open(store, options, clock.clone(), metrics)?;
                let groups = Groups::open(broker.clone(), clock.clone(), group_settings(&config))?;
                let transactions = Transactions::open(broker.clone(), groups.clone(), clock, txn_settings(&config))?;
                let shares = Shares::open(broker.clone(), groups.clone(), share_settings(&config))?;
                let quotas = Quotas::open(&broker)?;
                let kinesis = kinesis::Door::open(broker.clone(), config, audit)?;
                let cloudwatch = cloudwatch::Door::open(broker.clone())?;
                Ok::<_, StoreError>((broker, groups, transactions, shares, quotas, kinesis, cloudwatch))
            })
            .await
            .map_err(|error| StartError::Thread(error.to_string()))??
        };
        // A stop may have come between a topic's deletion and that of the offsets committed for it.
        forget_deleted(&broker, &groups, &shares).await;
        let (stopping, watching) = watch::channel(false);
        let listeners: Vec<Advertised> = kafka.iter().map(|(advertised, _)| advertised.clone()).collect();
        let coordinators =
            Coordinators { groups: groups.clone(), transactions: transactions.clone(), shares: shares.clone() };
        let watchers = Watchers { audit: audit.clone(), tracer: tracer.clone() };
        let door =
            Door::new(broker.clone(), coordinators, quotas, config.clone(), listeners, watching.clone(), watchers);
        let budget = RequestBudget::new(config.memory_shares().kafka_requests, broker.metrics());
        let collector = Collector {
            broker: broker.clone(),
            groups: groups.clone(),
            transactions: transactions.clone(),
            shares: shares.clone(),
            store_bytes_max: config.memory_shares().store,
            ages: Ages::default(),
        };
        let state = Arc::new(http_state(&config, &broker, collector, (&kinesis, &cloudwatch), &tracer, &watching));

        let mut workers = JoinSet::new();
        let expiration_ms = config.producer_id_expiration;
        workers.spawn(reaper::run(broker.clone(), config.retention_check_interval, expiration_ms));
        workers.spawn(reaper::run_compaction(broker.clone(), config.compaction_interval));
        workers.spawn({
            let (broker, groups, shares) = (broker.clone(), groups.clone(), shares.clone());
            reaper::run_deletions(broker.clone(), move || {
                let (broker, groups, shares) = (broker.clone(), groups.clone(), shares.clone());
                async move { forget_deleted(&broker, &groups, &shares).await }
            })
        });
        workers.spawn(scaler::run(broker.clone(), config.shards_max));
        workers.spawn(groups.run_timers());
        workers.spawn(transactions.run_timers());
        workers.spawn(shares.run_timers());
        if let Some(exporter) = exporter {
            workers.spawn(traces::run(exporter));
        }
        if let Some(auditor) = auditor {
            workers.spawn(audit::run(auditor, broker.clone()));
        }
        workers.spawn(cloudwatch::keeper::run(cloudwatch.keeper.clone()));
        workers.spawn(cloudwatch::own::run(broker.clone(), cloudwatch.keeper.clone()));
        let http_addr = bound.http.1;
        let mut doors = vec![tokio::spawn(http::serve(bound.http.0, state, clock, watching))];
        let places = Arc::new(tokio::sync::Semaphore::new(config.connections_max));
        for (index, (listener, _)) in bound.kafka.into_iter().enumerate() {
            doors.push(tokio::spawn(accept(listener, index, door.clone(), budget.clone(), places.clone())));
        }
        let kafka_addrs = kafka.iter().map(|(_, bound)| *bound).collect();
        Ok(Server {
            kafka_addrs,
            http_addr,
            broker,
            audit,
            tracer,
            stopping,
            doors,
            workers,
            grace_ms: config.shutdown_grace,
            folder: None,
        })
    }

    /// Where each Kafka listener is bound, in the configuration's order.
    pub fn kafka_addrs(&self) -> Vec<SocketAddr> {
        self.kafka_addrs.clone()
    }

    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Returns when what was recorded for others is told.
    async fn tell_all(&self) {
        self.audit.flush().await;
        if let Some(tracer) = &self.tracer {
            tracer.flush().await;
        }
    }

    /// Takes no more requests, answers those under way for at most the grace, writes what is queued and closes. The data
    /// folder is free when this returns.
    pub async fn shutdown(mut self) -> Result<(), StoreError> {
        self.stopping.send_replace(true);
        let clock = self.broker.clock().clone();
        let deadline_ms = clock.tick_ms().saturating_add(self.grace_ms);
        for door in &mut self.doors {
            tokio::select! {
                _ = &mut *door => {}
                () = clock.sleep_until(deadline_ms) => door.abort(),
            }
        }
        tokio::select! {
            () = self.tell_all() => {}
            () = clock.sleep_until(deadline_ms) => {}
        }
        self.workers.shutdown().await;
        let Server { broker, folder, .. } = self;
        let closed = broker.close().await;
        drop(broker);
        // What was stopped may have left work on a blocking thread, which ends by itself.
        if let Some(folder) = folder {
            folder.wait().await;
        }
        closed
    }
}

/// What groups have committed for topics that are gone, or processed of them, goes too.
async fn forget_deleted(broker: &Broker, groups: &Arc<Groups>, shares: &Arc<Shares>) {
    if let Err(error) = shares.forget_deleted_streams().await {
        tracing::warn!(%error, "what share groups processed of deleted topics is kept");
    }
    if let Err(error) = groups.forget_topics(|topic| broker.stream(topic).is_none()).await {
        tracing::warn!(%error, "offsets of deleted topics are kept");
    }
}

/// Sockets that listen already: an address in use is told before anything else happens.
struct Bound {
    kafka: Vec<(TcpListener, SocketAddr)>,
    http: (TcpListener, SocketAddr),
}

impl Bound {
    async fn bind(config: &Config) -> Result<Bound, StartError> {
        let mut kafka = Vec::new();
        for listener in &config.kafka_addr {
            kafka.push(bind(&listener.bind).await?);
        }
        Ok(Bound { kafka, http: bind(&config.http_addr).await? })
    }

    fn advertised(&self, config: &Config) -> Vec<(Advertised, SocketAddr)> {
        let listeners = config.kafka_addr.iter().zip(&self.kafka);
        listeners
            .map(|(listener, (_, bound))| {
                let HostPort { host, port } = listener.advertise(*bound);
                (Advertised { name: listener.name.clone(), host, port }, *bound)
            })
            .collect()
    }
}

async fn bind(address: &HostPort) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |error| StartError::Bind { address: address.to_string(), error };
    let listener = TcpListener::bind((address.host.as_str(), address.port)).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Accepts Kafka connections until the server stops, then waits for them to end.
async fn accept(
    listener: TcpListener,
    index: usize,
    door: Arc<Door>,
    budget: RequestBudget,
    places: Arc<tokio::sync::Semaphore>,
) {
    let mut stopping = door.stopping.clone();
    let mut connections = JoinSet::new();
    let clock = door.broker.clock().clone();
    loop {
        tokio::select! {
            () = conn::stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => match places.clone().try_acquire_owned() {
                    Ok(place) => {
                        let (door, budget) = (door.clone(), budget.clone());
                        connections.spawn(async move {
                            serve_connection(door, budget, socket, Client::new(peer, index)).await;
                            drop(place);
                        });
                    }
                    Err(_) => door.broker.metrics().connection_refused("connections_max"),
                },
                Err(error) => {
                    tracing::warn!(%error, "a Kafka connection cannot be accepted");
                    clock.sleep_ms(ACCEPT_RETRY_MS).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(door: Arc<Door>, budget: RequestBudget, socket: TcpStream, client: Client) {
    let metrics = door.broker.metrics().clone();
    let _open = metrics.connection_opened();
    let peer = client.peer;
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%peer, %error, "answers may be delayed");
    }
    let ending = conn::serve(door, budget, socket, client).await;
    let refused = match &ending {
        Ending::Closed | Ending::Stopping | Ending::Io(_) => None,
        Ending::Idle => Some("idle"),
        Ending::Unread => Some("unread"),
        Ending::Stalled => Some("stalled"),
        Ending::Throttled => Some("throttled"),
        Ending::FrameLength(_) => Some("frame_length"),
        Ending::UnknownApi(_) => Some("unknown_api"),
        Ending::UnsupportedVersion { .. } => Some("unsupported_version"),
        Ending::Malformed(_) => Some("malformed"),
        Ending::UnansweredFailure(_) => Some("unanswered_failure"),
        Ending::Unanswerable => Some("unanswerable"),
    };
    match refused {
        Some(reason) => {
            metrics.connection_refused(reason);
            tracing::info!(%peer, %ending, "connection closed");
        }
        None => tracing::debug!(%peer, %ending, "connection ended"),
    }
}

fn http_state(
    config: &Config,
    broker: &Arc<Broker>,
    collector: Collector,
    (kinesis, cloudwatch): (&Arc<kinesis::Door>, &Arc<cloudwatch::Door>),
    tracer: &Option<Arc<Tracer>>,
    stopping: &watch::Receiver<bool>,
) -> HttpState {
    let (health_broker, stopping) = (broker.clone(), stopping.clone());
    HttpState {
        metrics: broker.metrics().clone(),
        metrics_text: Box::new(move |format| collector.text(format)),
        health: Box::new(move || {
            let (status, reason) = match health_broker.failure() {
                Some(error) => (Status::Broken, Some(error.to_string())),
                None if *stopping.borrow() => (Status::Draining, Some("the server stops".into())),
                None => (Status::Ok, None),
            };
            let uptime_seconds = health_broker.clock().tick_ms() / 1_000;
            Health { status, version: env!("CARGO_PKG_VERSION"), uptime_seconds, reason }
        }),
        apis: vec![kinesis.api()],
        services: vec![cloudwatch.service()],
        access: Access::new(&config.account_id, &config.region, &config.credentials),
        tracer: tracer.clone(),
        reset: config.test_reset.then(|| reset(kinesis)),
        body_bytes_max: config.memory_shares().http_bodies.max(http::BODY_BYTES_LEAST),
        connections_max: http::listen::CONNECTIONS_MAX,
    }
}

/// Deletes every stream at once, whatever it is going through, and forgets what the account has set.
fn reset(kinesis: &Arc<kinesis::Door>) -> Reset {
    let kinesis = kinesis.clone();
    Box::new(move || {
        let (kinesis, broker) = (kinesis.clone(), kinesis.broker.clone());
        Box::pin(async move {
            for stream in broker.streams_in_any_state() {
                match broker.delete_stream(&stream).await {
                    // Another may have been faster.
                    Ok(()) | Err(CatalogError::NotFound) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            kinesis.account.reset(&broker).await.map_err(|error| error.to_string())
        })
    })
}

/// What Kafka's tools are shown as the broker's configuration.
fn broker_values(config: &Config, kafka: &[(Advertised, SocketAddr)]) -> BrokerValues {
    let listed = |address: &dyn Fn(&(Advertised, SocketAddr)) -> String| {
        kafka
            .iter()
            .map(|listener| format!("{}://{}", listener.0.name, address(listener)))
            .collect::<Vec<_>>()
            .join(",")
    };
    BrokerValues {
        node_id: config.node_id,
        listeners: listed(&|(_, bound)| bound.to_string()),
        advertised_listeners: listed(&|(told, _)| format!("{}:{}", told.host, told.port)),
        log_dirs: config.data_dir.display().to_string(),
        num_partitions: config.num_partitions,
        auto_create_topics_enable: config.auto_create_topics,
        message_max_bytes: config.message_max_bytes as i64,
        log_retention_ms: config.log_retention,
        log_retention_bytes: config.log_retention_bytes,
        log_segment_bytes: config.log_segment_bytes,
        log_cleaner_backoff_ms: config.compaction_interval,
        log_cleaner_dedupe_buffer_size: config.compaction_memory as i64,
        log_retention_check_interval_ms: config.retention_check_interval,
        kinesis_isolation: config.kinesis_isolation,
        kafka_limits: config.kafka_limits,
        socket_request_max_bytes: config.request_bytes_max as i64,
        connections_max_idle_ms: config.connections_idle_max,
        max_connections: config.connections_max as i64,
        fetch_max_bytes: config.fetch_bytes_max as i64,
        max_incremental_fetch_session_cache_slots: config.fetch_sessions_max as i64,
        producer_id_expiration_ms: config.producer_id_expiration,
        transaction_max_timeout_ms: config.transaction_timeout_max,
        transactional_id_expiration_ms: config.transactional_id_expiration,
        group_initial_rebalance_delay_ms: config.group_initial_rebalance_delay,
        group_min_session_timeout_ms: config.group_session_timeout_min,
        group_max_session_timeout_ms: config.group_session_timeout_max,
        group_max_size: config.group_size_max as i64,
        group_consumer_session_timeout_ms: config.group_consumer_session_timeout,
        group_consumer_min_session_timeout_ms: config.group_consumer_session_timeout_min,
        group_consumer_max_session_timeout_ms: config.group_consumer_session_timeout_max,
        group_consumer_heartbeat_interval_ms: config.group_consumer_heartbeat_interval,
        group_consumer_min_heartbeat_interval_ms: config.group_consumer_heartbeat_interval_min,
        group_consumer_max_heartbeat_interval_ms: config.group_consumer_heartbeat_interval_max,
        group_consumer_migration_policy: config.group_consumer_migration_policy.name(),
        share_groups: config.share_groups(),
        offsets_retention_ms: config.offsets_retention,
        offset_metadata_max_bytes: config.offset_metadata_bytes_max as i64,
    }
}

fn txn_settings(config: &Config) -> TxnSettings {
    TxnSettings { max_timeout_ms: config.transaction_timeout_max, id_expiration_ms: config.transactional_id_expiration }
}

fn group_settings(config: &Config) -> GroupSettings {
    let ms = |ms: i64| i32::try_from(ms).unwrap_or(i32::MAX);
    GroupSettings {
        initial_rebalance_delay_ms: ms(config.group_initial_rebalance_delay),
        min_session_timeout_ms: ms(config.group_session_timeout_min),
        max_session_timeout_ms: ms(config.group_session_timeout_max),
        max_size: i32::try_from(config.group_size_max).unwrap_or(i32::MAX),
        consumer: ConsumerConfig {
            session_timeout_ms: ms(config.group_consumer_session_timeout),
            heartbeat_interval_ms: ms(config.group_consumer_heartbeat_interval),
        },
        migration: config.group_consumer_migration_policy,
        offsets_retention_ms: config.offsets_retention,
        offset_metadata_max_bytes: i32::try_from(config.offset_metadata_bytes_max).unwrap_or(i32::MAX),
        ..GroupSettings::default()
    }
}

fn share_settings(config: &Config) -> ShareSettings {
    let values = config.share_groups();
    ShareSettings {
        session_timeout_ms: values.session_timeout_ms.value,
        heartbeat_interval_ms: values.heartbeat_interval_ms.value,
        lock_duration_ms: values.record_lock_duration_ms.value,
        deliveries_max: u16::try_from(values.delivery_count_limit.value).unwrap_or(u16::MAX),
        locks_max: values.partition_max_record_locks.value,
        members_max: config.group_share_size_max,
        sessions_max: config.group_share_sessions_max,
        ..ShareSettings::default()
    }
}
