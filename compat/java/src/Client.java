import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** The Java client as the steps use it: library defaults, but for waits that suit a test. */
final class Client {
    private static final long WAIT_MS = 60_000;

    final String bootstrap;
    final Admin admin;

    Client(String bootstrap) {
        this.bootstrap = bootstrap;
        this.admin = Admin.create(Map.of("bootstrap.servers", bootstrap, "default.api.timeout.ms", "60000"));
    }

    /** Acts until the condition holds. */
    static void until(BooleanSupplier condition, Supplier<String> what, Runnable act) {
        long end = System.currentTimeMillis() + WAIT_MS;
        while (!condition.getAsBoolean()) {
            Failed.unless(System.currentTimeMillis() < end, "within " + WAIT_MS / 1000 + " s: " + what.get());
            act.run();
        }
    }

    static void pause() {
        try {
            Thread.sleep(50);
        } catch (InterruptedException e) {
            throw new Failed("interrupted");
        }
    }

    /** The answer, or the error that came instead of it, without Java's wrapping. */
    static <T> T answer(KafkaFuture<T> future) throws Exception {
        try {
            return future.get();
        } catch (ExecutionException e) {
            throw e.getCause() instanceof Exception cause ? cause : e;
        }
    }

    void create(String topic, Map<String, String> config) throws Exception {
        answer(admin.createTopics(List.of(new NewTopic(topic, Records.PARTITIONS, (short) 1).configs(config))).all());
        awaitPartitions(topic, Records.PARTITIONS);
    }

    /** Waits until the topic has that many partitions in what the broker lists, 0 meaning that it is not there. */
    void awaitPartitions(String topic, int count) {
        int[] last = {-1};
        until(() -> (last[0] = partitionsOf(topic)) == count,
                () -> "metadata says " + last[0] + " partitions instead of " + count, Client::pause);
    }

    private int partitionsOf(String topic) {
        try {
            if (!answer(admin.listTopics().names()).contains(topic)) {
                return 0;
            }
            return answer(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size();
        } catch (Exception e) {
            return -1;
        }
    }

    KafkaProducer<byte[], byte[]> producer(Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "linger.ms", 20));
        config.putAll(more);
        return new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
    }

    /** Sends and waits; gives the places in the order of sending. */
    List<RecordMetadata> send(List<ProducerRecord<byte[], byte[]>> batch, Map<String, Object> config) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(config)) {
            return await(batch.stream().map(producer::send).toList());
        }
    }

    static List<RecordMetadata> await(List<Future<RecordMetadata>> sent) throws Exception {
        List<RecordMetadata> places = new ArrayList<>();
        for (Future<RecordMetadata> one : sent) {
            try {
                places.add(one.get());
            } catch (ExecutionException e) {
                throw e.getCause() instanceof Exception cause ? cause : e;
            }
        }
        return places;
    }

    /** Every partition of the topic from its beginning, without a group. */
    Reader reader(String topic) {
        Reader reader = new Reader(topic, Map.of("enable.auto.commit", false));
        reader.consumer.assign(partitions(topic));
        return reader;
    }

    /** A member of the group, which never commits by itself. */
    Reader member(String topic, String group, Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of(
                "group.id", group, "enable.auto.commit", false, "heartbeat.interval.ms", 500, "session.timeout.ms", 10_000));
        config.putAll(more);
        Reader reader = new Reader(topic, config);
        reader.consumer.subscribe(List.of(topic));
        return reader;
    }

    static List<TopicPartition> partitions(String topic) {
        return IntStream.range(0, Records.PARTITIONS).mapToObj(partition -> new TopicPartition(topic, partition)).toList();
    }

    List<ConsumerRecord<byte[], byte[]>> readAll(String topic, int count) {
        try (Reader reader = reader(topic)) {
            return reader.read(count);
        }
    }

    /** A consumer of one topic. */
    final class Reader implements AutoCloseable {
        final String topic;
        final KafkaConsumer<byte[], byte[]> consumer;

        Reader(String topic, Map<String, Object> more) {
            this.topic = topic;
            Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "earliest"));
            config.putAll(more);
            this.consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        }

        void pollInto(Collection<ConsumerRecord<byte[], byte[]>> got, long milliseconds) {
            consumer.poll(Duration.ofMillis(milliseconds)).forEach(got::add);
        }

        /** Polls until that many are there; then once more, so that a record too many shows. */
        List<ConsumerRecord<byte[], byte[]>> read(int count) {
            List<ConsumerRecord<byte[], byte[]>> got = new ArrayList<>();
            until(() -> got.size() >= count, () -> "read " + got.size() + " of " + count + " records", () -> pollInto(got, 500));
            pollInto(got, 300);
            return got;
        }

        List<Integer> assignment() {
            return consumer.assignment().stream().map(TopicPartition::partition).sorted().toList();
        }

        /** Commits places with a note, which {@link #committed} expects back. */
        void commit(Map<Integer, Long> places) {
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            places.forEach((partition, offset) ->
                    offsets.put(new TopicPartition(topic, partition), new OffsetAndMetadata(offset, "note " + offset)));
            consumer.commitSync(offsets);
        }

        Map<Integer, Long> committed() {
            Map<Integer, Long> places = new TreeMap<>();
            consumer.committed(Set.copyOf(partitions(topic))).forEach((partition, place) -> {
                if (place != null) {
                    Failed.unless(place.metadata().equals("note " + place.offset()), "the note is " + place.metadata());
                    places.put(partition.partition(), place.offset());
                }
            });
            return places;
        }

        @Override
        public void close() {
            consumer.close();
        }
    }
}
