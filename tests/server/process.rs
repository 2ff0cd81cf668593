//! The real binary as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

pub struct Process {
    child: Child,
    pub kafka: SocketAddr,
    pub http: SocketAddr,
}

fn command(folder: &Path, settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anabranch"));
    command.args(["serve", "--kafka-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--data-dir"]).arg(folder);
    command.args(settings).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

impl Process {
    /// Starts on free ports and learns them from the banner.
    pub fn start(folder: &Path, settings: &[&str]) -> Process {
        let mut child = command(folder, settings).spawn().unwrap();
        let mut banner = BufReader::new(child.stdout.take().unwrap()).lines();
        let (mut kafka, mut http) = (None, None);
        while let Some(Ok(line)) = banner.next() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("Kafka") => kafka = words.next().map(|address| address.parse().unwrap()),
                Some("Kinesis") => {
                    http = words.next().and_then(|url| url.strip_prefix("http://")).map(|url| url.parse().unwrap());
                }
                // The banner's last line but one: nothing of it is still to be written when the pipe closes.
                Some("aws") => return Process { child, kafka: kafka.unwrap(), http: http.unwrap() },
                _ => {}
            }
        }
        panic!("no banner; it ended with {:?}", child.wait());
    }

    /// What a start that must fail says, and its exit code.
    pub fn refused(folder: &Path) -> (String, Option<i32>) {
        let mut child = command(folder, &[]).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (said, child.wait().unwrap().code())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&mut self) -> ExitStatus {
        // SAFETY: a signal to a process that is ours and has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) }, 0);
        self.child.wait().unwrap()
    }

    /// Bytes of memory that the process holds, where the system says so.
    pub fn resident(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Fails when it has ended already, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
