import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Properties;

import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import software.amazon.kinesis.retrieval.AggregatorUtil;
import software.amazon.kinesis.retrieval.KinesisClientRecord;

/**
 * Apache Kafka's consumer, in a group: {@code Reader TOPIC GROUP}. It prints {@code record PARTITION OFFSET.SUB KEY DATA} for
 * every record, one for each that the Kinesis Producer Library had aggregated in it, and leaves when its
 * standard input ends.
 */
public final class Reader {
    private static volatile boolean leaving;

    private static void tell(ConsumerRecord<byte[], byte[]> record) {
        KinesisClientRecord whole = KinesisClientRecord.builder()
            .partitionKey(new String(record.key(), StandardCharsets.UTF_8))
            .sequenceNumber(Long.toString(record.offset()))
            .approximateArrivalTimestamp(Instant.ofEpochMilli(record.timestamp()))
            .data(ByteBuffer.wrap(record.value()))
            .build();
        for (KinesisClientRecord one : new AggregatorUtil().deaggregate(List.of(whole))) {
            System.out.println("record " + record.partition() + " " + record.offset() + "." + one.subSequenceNumber() + " "
                + one.partitionKey() + " " + StandardCharsets.UTF_8.decode(one.data()));
        }
    }

    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", System.getenv("BOOTSTRAP"));
        properties.put("group.id", arguments[1]);
        properties.put("auto.offset.reset", "earliest");
        properties.put("metadata.max.age.ms", "500");
        Thread ending = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {
                    // What is sent does not matter, only that it ends.
                }
            } catch (java.io.IOException gone) {
                // The end as well.
            }
            leaving = true;
        });
        ending.setDaemon(true);
        ending.start();
        try (var consumer = new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(arguments[0]));
            while (!leaving) {
                consumer.poll(Duration.ofMillis(200)).forEach(Reader::tell);
            }
        }
        System.out.println("left");
        System.exit(0);
    }
}
