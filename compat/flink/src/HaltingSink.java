package org.apache.flink.connector.kafka.sink;

import java.io.IOException;
import java.util.Collection;
import java.util.Properties;
import org.apache.flink.api.common.serialization.SimpleStringSchema;
import org.apache.flink.api.connector.sink2.Committer;
import org.apache.flink.api.connector.sink2.CommitterInitContext;
import org.apache.flink.connector.base.DeliveryGuarantee;

/**
 * Flink's sink for Kafka, exactly once, which ends the process instead of committing its transactions, once so many
 * checkpoints are complete: then the transactions are flushed, the checkpoint names their producers' ids and epochs, and
 * the next process has to commit them. In Flink's package for the sake of the constructor.
 */
public final class HaltingSink extends KafkaSink<String> {
    private static final long serialVersionUID = 1;
    private final int haltAt;

    /** A sink that never halts when {@code haltAt} is 0. */
    public HaltingSink(Properties client, String topic, String naming, int haltAt) {
        super(DeliveryGuarantee.EXACTLY_ONCE, client, topic,
            KafkaRecordSerializationSchema.builder()
                .setTopic(topic)
                .setValueSerializationSchema(new SimpleStringSchema())
                .build(),
            TransactionNamingStrategy.valueOf(naming));
        this.haltAt = haltAt;
    }

    @Override
    public Committer<KafkaCommittable> createCommitter(CommitterInitContext context) {
        Committer<KafkaCommittable> committer = super.createCommitter(context);
        return haltAt == 0 ? committer : new Halting(committer, haltAt);
    }

    private static final class Halting implements Committer<KafkaCommittable> {
        private final Committer<KafkaCommittable> committer;
        private int left;

        Halting(Committer<KafkaCommittable> committer, int left) {
            this.committer = committer;
            this.left = left;
        }

        @Override
        public void commit(Collection<CommitRequest<KafkaCommittable>> requests) throws IOException, InterruptedException {
            left--;
            if (left <= 0 && !requests.isEmpty()) {
                for (CommitRequest<KafkaCommittable> request : requests) {
                    System.out.println("leaves " + request.getCommittable());
                }
                System.out.flush();
                Runtime.getRuntime().halt(3);
            }
            committer.commit(requests);
        }

        @Override
        public void close() throws Exception {
            committer.close();
        }
    }
}
