import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.utils.AppInfoParser;

/**
 * The steps of ../README.md with Apache Kafka's Java client, and a few more that only it can do. Every wait is
 * bounded, and a whole step is as well: a client that hangs fails its step, not the run.
 */
public final class Compat {
    private static final int STEP_SECONDS = 120;
    private static final Map<Integer, Long> PLACES = new TreeMap<>(Map.of(0, 30L, 1, 31L, 2, 32L, 3, 33L));

    private final Client client;
    private final String restart;
    private final String id = Long.toHexString(System.nanoTime());
    private final Map<String, List<ProducerRecord<byte[], byte[]>>> produced = new TreeMap<>();
    private final ExecutorService threads = Executors.newCachedThreadPool(action -> {
        Thread thread = new Thread(action);
        thread.setDaemon(true);
        return thread;
    });
    private boolean failed;

    private Compat(String bootstrap, String restart) {
        this.client = new Client(bootstrap);
        this.restart = restart;
    }

    /** What a step does; whatever it throws is its failure. */
    interface Step {
        void run() throws Exception;
    }

    /** Nothing to do a step with. */
    private static final class Skip extends RuntimeException {
        private static final long serialVersionUID = 1;

        Skip(String why) {
            super(why);
        }
    }

    public static void main(String[] arguments) {
        Compat compat = new Compat(System.getenv("BOOTSTRAP"), System.getenv("RESTART"));
        compat.all();
        System.exit(compat.failed ? 1 : 0);
    }

    private void all() {
        System.out.println("version " + AppInfoParser.getVersion());
        step("metadata", this::metadata);
        step("create", this::create);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            step("produce-" + codec, () -> produce(codec));
        }
        step("consume-start", this::consumeStart);
        step("consume-timestamp", this::consumeTimestamp);
        step("group", () -> group("group", Map.of(), Map.of()));
        step("group-cooperative", () -> {
            Map<String, Object> cooperative = Map.of("partition.assignment.strategy", CooperativeStickyAssignor.class.getName());
            group("group-cooperative", cooperative, cooperative);
        });
        step("group-static", this::staticMember);
        step("commit", this::commit);
        step("restart", this::restartBroker);
        step("delete", this::delete);
        new AdminSteps(client, this::name, this::step).all();
    }

    /** Runs one step and reports it, whatever happens in it. */
    private void step(String name, Step action) {
        Callable<Void> task = () -> {
            action.run();
            return null;
        };
        Future<Void> running = threads.submit(task);
        try {
            running.get(STEP_SECONDS, TimeUnit.SECONDS);
            System.out.println("ok " + name);
        } catch (ExecutionException e) {
            report(name, e.getCause());
        } catch (TimeoutException | InterruptedException e) {
            running.cancel(true);
            report(name, new Failed("not done within " + STEP_SECONDS + " s"));
        }
    }

    private void report(String name, Throwable why) {
        if (why instanceof Skip) {
            System.out.println("skip " + name + ": " + why.getMessage());
            return;
        }
        failed = true;
        String kind = why instanceof Failed ? "" : why.getClass().getSimpleName() + ": ";
        String text = String.valueOf(why.getMessage()).replaceAll("\\s+", " ");
        System.out.println("FAIL " + name + ": " + kind + text.substring(0, Math.min(text.length(), 600)));
        why.printStackTrace();
    }

    /** A topic or a group of this run's own. */
    private String name(String what) {
        return "java-" + what + "-" + id;
    }

    private void metadata() throws Exception {
        var cluster = client.admin.describeCluster();
        int port = Integer.parseInt(client.bootstrap.substring(client.bootstrap.lastIndexOf(':') + 1));
        List<Integer> ports = Client.answer(cluster.nodes()).stream().map(Node::port).toList();
        Failed.unless(ports.contains(port), "no broker with port " + port + " among " + ports);
        Failed.unless(!Client.answer(cluster.clusterId()).isEmpty(), "the cluster has no id");
        Failed.unless(Client.answer(cluster.controller()) != null, "there is no controller");
        Failed.unless(!Client.answer(client.admin.listTopics().names()).contains(name("none")), "lists a topic that nobody made");
    }

    private void create() throws Exception {
        String topic = name("create");
        client.create(topic, Map.of("retention.ms", "86400000"));
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        var config = Client.answer(client.admin.describeConfigs(List.of(resource)).all()).get(resource);
        Failed.unless(config.get("retention.ms").value().equals("86400000"), "retention.ms is " + config.get("retention.ms"));
        mustThrow(TopicExistsException.class, () -> client.create(topic, Map.of()));
    }

    static void mustThrow(Class<? extends Exception> kind, Step action) throws Exception {
        try {
            action.run();
        } catch (Exception e) {
            if (kind.isInstance(e)) {
                return;
            }
            throw e;
        }
        throw new Failed("was not refused with " + kind.getSimpleName());
    }

    private void produce(String codec) throws Exception {
        String topic = name(codec);
        client.create(topic, Map.of());
        List<ProducerRecord<byte[], byte[]>> batch = Records.make(topic, Records.COUNT, "r");
        List<RecordMetadata> places = client.send(batch, Map.of("compression.type", codec));
        long[] following = new long[Records.PARTITIONS];
        for (int i = 0; i < batch.size(); i++) {
            int partition = places.get(i).partition();
            Failed.unless(partition == batch.get(i).partition(), "acknowledged in partition " + partition);
            Failed.unless(places.get(i).offset() == following[partition],
                    "acknowledged offset " + places.get(i).offset() + " instead of " + following[partition]);
            following[partition]++;
        }
        produced.put(codec, batch);
    }

    private void consumeStart() {
        Failed.unless(!produced.isEmpty(), "nothing was produced");
        produced.forEach((codec, batch) -> naming(codec, () -> Records.checkEqual(batch, client.readAll(name(codec), batch.size()))));
    }

    private void consumeTimestamp() {
        Failed.unless(!produced.isEmpty(), "nothing was produced");
        produced.forEach((codec, batch) -> naming(codec, () -> lookUp(name(codec), batch)));
    }

    private static void naming(String codec, Runnable action) {
        try {
            action.run();
        } catch (Failed e) {
            throw new Failed(codec + ": " + e.getMessage());
        }
    }

    private void lookUp(String topic, List<ProducerRecord<byte[], byte[]>> batch) {
        try (Client.Reader reader = client.reader(topic)) {
            long middle = Records.FIRST_TIMESTAMP + Records.COUNT / 2 * Records.APART_MS;
            for (long at : new long[] {middle, middle + 1}) {
                long[] wanted = new long[Records.PARTITIONS];
                batch.stream().filter(record -> record.timestamp() < at).forEach(record -> wanted[record.partition()]++);
                reader.consumer.offsetsForTimes(times(topic, at)).forEach((partition, place) -> {
                    Failed.unless(place != null && place.offset() == wanted[partition.partition()],
                            "for " + at + " " + partition + " gives " + place + " instead of " + wanted[partition.partition()]);
                    Failed.unless(place.timestamp() >= at, "the timestamp that was found is " + place.timestamp());
                    reader.consumer.seek(partition, place.offset());
                });
            }
            // The loop's last answer is for the later time, which no record has exactly.
            List<ProducerRecord<byte[], byte[]>> later = batch.stream().filter(record -> record.timestamp() > middle).toList();
            List<ConsumerRecord<byte[], byte[]>> got = reader.read(later.size());
            Failed.unless(Records.numbersRead(got).equals(Records.numbersSent(later)),
                    "read " + got.size() + " records from the timestamp on instead of " + later.size());
            Map<TopicPartition, OffsetAndTimestamp> after =
                    reader.consumer.offsetsForTimes(times(topic, Records.FIRST_TIMESTAMP + 2 * Records.COUNT * Records.APART_MS));
            Failed.unless(after.values().stream().allMatch(place -> place == null), "offsets after the last record: " + after);
        }
    }

    private static Map<TopicPartition, Long> times(String topic, long at) {
        return Client.partitions(topic).stream().collect(Collectors.toMap(partition -> partition, partition -> at));
    }

    /** Two members share the partitions; one leaves and the other takes them over. */
    private void group(String what, Map<String, Object> first, Map<String, Object> second) throws Exception {
        String topic = name(what);
        client.create(topic, Map.of());
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        List<Client.Reader> members = new ArrayList<>();
        Runnable poll = () -> members.forEach(member -> member.pollInto(got, 100));
        Runnable awaitShared = () -> Client.until(() -> shared(members),
                () -> "the members have " + members.stream().map(Client.Reader::assignment).toList(), poll);
        try {
            for (Map<String, Object> config : List.of(first, second)) {
                members.add(client.member(topic, topic, config));
                awaitShared.run();
            }
            ConsumerGroupDescription described =
                    Client.answer(client.admin.describeConsumerGroups(List.of(topic)).all()).get(topic);
            Failed.unless(described.members().size() == 2, "is described with " + described.members().size() + " members");
            List<ProducerRecord<byte[], byte[]>> all = new ArrayList<>(Records.make(topic, 200, "a"));
            client.send(all, Map.of());
            Client.until(() -> got.size() >= 200, () -> "the members read " + got.size() + " of 200 records", poll);
            // Both commit what they have read, so that whoever owns a partition afterwards goes on from there.
            members.forEach(member -> member.consumer.commitSync());
            members.remove(0).close();
            awaitShared.run();
            List<ProducerRecord<byte[], byte[]>> more = Records.make(topic, 200, "b");
            client.send(more, Map.of());
            all.addAll(more);
            Client.until(() -> got.size() >= 400, () -> "the remaining member read up to " + got.size() + " of 400 records", poll);
            poll.run();
            Failed.unless(Records.numbersRead(got).equals(Records.numbersSent(all)), "400 records were delivered as " + got.size());
        } finally {
            members.forEach(Client.Reader::close);
        }
    }

    /** Every member has some partitions, and together they have each one once. */
    private static boolean shared(List<Client.Reader> members) {
        List<Integer> all = new ArrayList<>();
        for (Client.Reader member : members) {
            if (member.assignment().isEmpty()) {
                return false;
            }
            all.addAll(member.assignment());
        }
        all.sort(null);
        return all.equals(List.of(0, 1, 2, 3));
    }

    /** A static member goes and comes back under its name: nobody else is disturbed meanwhile. */
    private void staticMember() throws Exception {
        String topic = name("group-static");
        client.create(topic, Map.of());
        List<Client.Reader> members = new ArrayList<>();
        List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
        Runnable poll = () -> members.forEach(member -> member.pollInto(got, 100));
        try {
            for (String instance : List.of("one", "two")) {
                members.add(client.member(topic, topic, Map.of("group.instance.id", instance)));
                Client.until(() -> shared(members), () -> "the members share nothing yet", poll);
            }
            int generation = members.get(0).consumer.groupMetadata().generationId();
            List<Integer> share = members.get(1).assignment();
            members.remove(1).close();
            members.add(client.member(topic, topic, Map.of("group.instance.id", "two")));
            Client.until(() -> shared(members), () -> "the member that came back has no share", poll);
            Failed.unless(members.get(1).assignment().equals(share),
                    "it had " + share + " and came back to " + members.get(1).assignment());
            int after = members.get(0).consumer.groupMetadata().generationId();
            Failed.unless(after == generation, "the group went from generation " + generation + " to " + after);
        } finally {
            members.forEach(Client.Reader::close);
        }
    }

    /** Has one member of a new group read the records and commit some places among them. */
    private void readAndCommit(String topic, String group, int count) {
        try (Client.Reader member = client.member(topic, group, Map.of())) {
            Failed.unless(member.committed().isEmpty(), "a new group has offsets: " + member.committed());
            member.read(count);
            member.commit(PLACES);
            Failed.unless(member.committed().equals(PLACES), "committed " + PLACES + " and read back " + member.committed());
        }
    }

    /** That a new member of the group is given exactly what lies after the committed places. */
    private void checkResumes(String topic, String group, int total) {
        int left = total - PLACES.values().stream().mapToInt(Long::intValue).sum();
        try (Client.Reader member = client.member(topic, group, Map.of())) {
            List<ConsumerRecord<byte[], byte[]>> got = member.read(left);
            Failed.unless(got.size() == left, left + " records lie after the commit, " + got.size() + " were delivered");
            Map<Integer, Long> next = new HashMap<>(PLACES);
            for (ConsumerRecord<byte[], byte[]> record : got) {
                long wanted = next.merge(record.partition(), 1L, Long::sum) - 1;
                Failed.unless(record.offset() == wanted, "partition " + record.partition() + " went on at " + record.offset()
                        + " instead of " + wanted);
            }
            Failed.unless(member.committed().equals(PLACES), "committed " + PLACES + ", now " + member.committed());
        }
    }

    private void commit() throws Exception {
        String topic = name("commit");
        client.create(topic, Map.of());
        client.send(Records.make(topic, Records.COUNT, "r"), Map.of());
        readAndCommit(topic, topic, Records.COUNT);
        checkResumes(topic, topic, Records.COUNT);
    }

    /** Kills the broker while records are on their way. What reads lives through it; another group resumes. */
    private void restartBroker() throws Exception {
        if (restart == null || restart.isBlank()) {
            throw new Skip("this broker can't be restarted");
        }
        String topic = name("restart");
        client.create(topic, Map.of());
        List<ProducerRecord<byte[], byte[]>> batch = Records.make(topic, 600, "s");
        try (KafkaProducer<byte[], byte[]> producer = client.producer(Map.of());
                Client.Reader stays = client.member(topic, name("restart-stays"), Map.of());
                Client.Reader tail = client.reader(topic)) {
            Client.await(batch.subList(0, 200).stream().map(producer::send).toList());
            readAndCommit(topic, topic, 200);
            List<ConsumerRecord<byte[], byte[]>> seen = stays.read(200);
            List<ConsumerRecord<byte[], byte[]>> tailed = tail.read(200);
            // These are on their way, acknowledged or not, when the broker is killed.
            List<Future<RecordMetadata>> sent = new ArrayList<>(batch.subList(200, 400).stream().map(producer::send).toList());
            killBroker();
            batch.subList(400, 600).forEach(record -> sent.add(producer.send(record)));
            Client.await(sent);
            // The member that stays may be given again what it did not commit; the reader without a group may not.
            Client.until(() -> distinct(seen) >= 600, () -> "the member that stayed saw " + distinct(seen) + " of 600 records",
                    () -> stays.pollInto(seen, 500));
            tailed.addAll(tail.read(600 - tailed.size()));
            Records.checkEqual(batch, tailed);
        }
        Records.checkEqual(batch, client.readAll(topic, batch.size()));
        checkResumes(topic, topic, batch.size());
    }

    private static int distinct(List<ConsumerRecord<byte[], byte[]>> records) {
        Set<String> places = new HashSet<>();
        records.forEach(record -> places.add(record.partition() + "@" + record.offset()));
        return places.size();
    }

    private void killBroker() throws Exception {
        List<String> command = new ArrayList<>(Arrays.asList(restart.trim().split("\\s+")));
        command.add("kill");
        int status = new ProcessBuilder(command).redirectOutput(ProcessBuilder.Redirect.DISCARD)
                .redirectError(ProcessBuilder.Redirect.INHERIT).start().waitFor();
        Failed.unless(status == 0, "the broker did not come back");
    }

    private void delete() throws Exception {
        String topic = name("delete");
        client.create(topic, Map.of());
        client.send(Records.make(topic, 20, "r"), Map.of());
        Client.answer(client.admin.deleteTopics(List.of(topic)).all());
        client.awaitPartitions(topic, 0);
        mustThrow(UnknownTopicOrPartitionException.class, () -> Client.answer(client.admin.deleteTopics(List.of(topic)).all()));
    }
}
