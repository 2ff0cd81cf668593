import java.time.Duration;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.kafka.sink.HaltingSink;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Copies a topic into another one exactly once, in a cluster of this one process, until it is ended. Its settings are in the
 * environment; {@code HALT_AT} makes it die in the middle.
 */
public final class Copy {
    private static final int PARALLELISM = 2;
    private static final int RECORDS_A_SECOND = 2500;

    private Copy() {}

    public static void main(String[] arguments) throws Exception {
        String brokers = System.getenv("BOOTSTRAP");
        String from = System.getenv("FROM");
        KafkaSource<String> source = KafkaSource.<String>builder()
            .setBootstrapServers(brokers)
            .setTopics(from)
            .setGroupId(System.getenv("TO"))
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setValueOnlyDeserializer(new SimpleStringSchema())
            .build();
        int haltAt = Integer.parseInt(System.getenv("HALT_AT"));
        Properties client = new Properties();
        client.setProperty("bootstrap.servers", brokers);
        client.setProperty("key.serializer", ByteArraySerializer.class.getName());
        client.setProperty("value.serializer", ByteArraySerializer.class.getName());
        // What a process that dies leaves open has to wait for the next one; but a transaction that a killed broker left in
        // doubt under the running job holds it up until its timeout.
        client.setProperty("transaction.timeout.ms", haltAt > 0 ? "300000" : "20000");
        client.setProperty("request.timeout.ms", "10000");
        client.setProperty("delivery.timeout.ms", "30000");
        client.setProperty("max.block.ms", "30000");
        KafkaSink<String> sink = new HaltingSink(client, System.getenv("TO"), System.getenv("NAMING"), haltAt);
        try (StreamExecutionEnvironment flink = StreamExecutionEnvironment.createLocalEnvironment(PARALLELISM, settings())) {
            flink.enableCheckpointing(500);
            flink.fromSource(source, WatermarkStrategy.noWatermarks(), "from")
                .map(new Pace())
                .sinkTo(sink);
            flink.execute();
        }
    }

    private static Configuration settings() {
        Configuration settings = new Configuration();
        settings.setString("execution.checkpointing.dir", System.getenv("CHECKPOINTS"));
        settings.setString("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");
        settings.setString("execution.checkpointing.num-retained", "3");
        settings.setString("restart-strategy.type", "fixed-delay");
        settings.setString("restart-strategy.fixed-delay.attempts", "20");
        settings.setString("restart-strategy.fixed-delay.delay", Duration.ofMillis(500).toString());
        settings.setString("taskmanager.memory.network.max", "32mb");
        settings.setString("taskmanager.memory.managed.size", "32mb");
        String from = System.getenv("RESTORE");
        if (!from.isEmpty()) {
            settings.setString("execution.state-recovery.path", from);
        }
        return settings;
    }

    /** Slows the records down, so that there is a middle. */
    private static final class Pace implements MapFunction<String, String> {
        private static final long serialVersionUID = 1;
        private int passed;

        @Override
        public String map(String value) throws InterruptedException {
            passed++;
            if (passed % 1000 == 0) {
                System.out.println("passed " + passed);
            }
            if (passed % (RECORDS_A_SECOND / 100) == 0) {
                Thread.sleep(10);
            }
            return value;
        }
    }
}
