//! The threads that a property runs a door on, and whether anything panicked on them. A panic there ends a task and not
//! the test, so it is counted and looked at after each input.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Runtime};

/// What panicked on the threads of one runtime.
pub struct Panics {
    threads: &'static str,
    count: Arc<AtomicUsize>,
}

impl Panics {
    /// A runtime whose threads are called `threads`, and the count of their panics.
    pub fn watched_on(threads: &'static str) -> (Runtime, Panics) {
        let count = Arc::new(AtomicUsize::new(0));
        let previous = std::panic::take_hook();
        let counted = count.clone();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().name().is_some_and(|name| name.starts_with(threads)) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            previous(panic);
        }));
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_name(threads).enable_all().build().expect("a runtime");
        (runtime, Panics { threads, count })
    }

    pub fn assert_none(&self) {
        assert_eq!(self.count.load(Ordering::SeqCst), 0, "{} panics", self.threads);
    }
}
