import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.BiConsumer;
import java.util.function.UnaryOperator;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListConfigResourcesOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ElectionNotNeededException;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.NoReassignmentInProgressException;

/** What only this client's Admin can ask for: a step for each family of requests. */
final class AdminSteps {
    private final Client client;
    private final UnaryOperator<String> name;
    private final BiConsumer<String, Compat.Step> step;

    AdminSteps(Client client, UnaryOperator<String> name, BiConsumer<String, Compat.Step> step) {
        this.client = client;
        this.name = name;
        this.step = step;
    }

    void all() {
        step.accept("admin-offsets", this::offsets);
        step.accept("admin-configs", this::configs);
        step.accept("admin-partitions", this::partitions);
        step.accept("admin-delete-records", this::deleteRecords);
        step.accept("admin-groups", this::groups);
        step.accept("admin-cluster", this::cluster);
        step.accept("admin-producers", this::producers);
    }

    private String topic(String what) throws Exception {
        String topic = name.apply("admin-" + what);
        client.create(topic, Map.of());
        client.send(Records.make(topic, 40, "r"), Map.of());
        return topic;
    }

    private long listed(TopicPartition partition, OffsetSpec spec) throws Exception {
        return Client.answer(client.admin.listOffsets(Map.of(partition, spec)).all()).get(partition).offset();
    }

    /** Ten records lie in each partition, the last one with the latest timestamp. */
    private void offsets() throws Exception {
        TopicPartition partition = new TopicPartition(topic("offsets"), 2);
        Map<String, OffsetSpec> specs = Map.of("earliest", OffsetSpec.earliest(), "latest", OffsetSpec.latest(),
                "max-timestamp", OffsetSpec.maxTimestamp(), "earliest-local", OffsetSpec.earliestLocal(),
                "latest-tiered", OffsetSpec.latestTiered());
        Map<String, Long> wanted =
                Map.of("earliest", 0L, "latest", 10L, "max-timestamp", 9L, "earliest-local", 0L, "latest-tiered", -1L);
        for (String which : wanted.keySet()) {
            long got = listed(partition, specs.get(which));
            Failed.unless(got == wanted.get(which), which + " is " + got + " instead of " + wanted.get(which));
        }
    }

    private void configs() throws Exception {
        ConfigResource topic = new ConfigResource(ConfigResource.Type.TOPIC, topic("configs"));
        alter(topic, "retention.ms", "123456", AlterConfigOp.OpType.SET);
        expect(topic, "retention.ms", "123456", ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        alter(topic, "retention.ms", "", AlterConfigOp.OpType.DELETE);
        expect(topic, "retention.ms", "604800000", ConfigEntry.ConfigSource.DEFAULT_CONFIG);
        String throttled = "leader.replication.throttled.replicas";
        alter(topic, throttled, "0:1", AlterConfigOp.OpType.APPEND);
        alter(topic, throttled, "1:1", AlterConfigOp.OpType.APPEND);
        expect(topic, throttled, "0:1,1:1", ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        alter(topic, throttled, "0:1", AlterConfigOp.OpType.SUBTRACT);
        expect(topic, throttled, "1:1", ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
        Compat.mustThrow(InvalidConfigurationException.class,
                () -> alter(topic, "retention.ms", "soon", AlterConfigOp.OpType.SET));
        int node = Client.answer(client.admin.describeCluster().controller()).id();
        ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, Integer.toString(node));
        var described = Client.answer(client.admin.describeConfigs(List.of(broker)).all()).get(broker);
        Failed.unless(described.get("num.partitions") != null, "the broker's num.partitions is not described");
        var resources = Client.answer(client.admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC),
                new ListConfigResourcesOptions()).all());
        Failed.unless(resources.contains(topic), "the topic is not among the config resources");
    }

    private void alter(ConfigResource resource, String key, String value, AlterConfigOp.OpType how) throws Exception {
        Client.answer(client.admin.incrementalAlterConfigs(
                Map.of(resource, List.of(new AlterConfigOp(new ConfigEntry(key, value), how)))).all());
    }

    /** A broker may show a change a moment after it. */
    private void expect(ConfigResource resource, String key, String value, ConfigEntry.ConfigSource source) {
        ConfigEntry[] last = new ConfigEntry[1];
        Client.until(() -> {
            try {
                last[0] = Client.answer(client.admin.describeConfigs(List.of(resource)).all()).get(resource).get(key);
            } catch (Exception e) {
                throw new Failed(e.toString());
            }
            return last[0].value().equals(value) && last[0].source() == source;
        }, () -> key + " is described as " + last[0], Client::pause);
    }

    private void partitions() throws Exception {
        String topic = topic("partitions");
        Client.answer(client.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(6))).all());
        client.awaitPartitions(topic, 6);
        Compat.mustThrow(InvalidPartitionsException.class,
                () -> Client.answer(client.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(5))).all()));
        try (var producer = client.producer(Map.of())) {
            long offset = producer.send(new ProducerRecord<>(topic, 5, null, new byte[1])).get().offset();
            Failed.unless(offset == 0, "the new partition began at " + offset);
        }
    }

    private void deleteRecords() throws Exception {
        TopicPartition partition = new TopicPartition(topic("delete-records"), 1);
        var answer = client.admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(7)));
        long low = Client.answer(answer.lowWatermarks().get(partition)).lowWatermark();
        Failed.unless(low == 7, "the low watermark is " + low);
        Failed.unless(listed(partition, OffsetSpec.earliest()) == 7, "the earliest offset stayed");
        try (Client.Reader reader = client.reader(partition.topic())) {
            var got = reader.read(33);
            Failed.unless(got.size() == 33, "read " + got.size() + " records instead of 33");
        }
    }

    private void groups() throws Exception {
        String topic = topic("groups");
        try (Client.Reader member = client.member(topic, topic, Map.of())) {
            member.read(40);
            member.consumer.commitSync();
            var described = Client.answer(client.admin.describeConsumerGroups(List.of(topic)).all()).get(topic);
            Failed.unless(described.groupState() == GroupState.STABLE, "the group is " + described.groupState());
            Failed.unless(described.members().iterator().next().assignment().topicPartitions().size() == 4, "described " + described);
        }
        var listed = Client.answer(client.admin.listGroups().all());
        Failed.unless(listed.stream().anyMatch(group -> group.groupId().equals(topic)), "the group is not listed");
        TopicPartition partition = new TopicPartition(topic, 0);
        Client.answer(client.admin.alterConsumerGroupOffsets(topic, Map.of(partition, new OffsetAndMetadata(3))).all());
        var offsets = Client.answer(client.admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata());
        Failed.unless(offsets.size() == 4 && offsets.get(partition).offset() == 3, "the offsets are " + offsets);
        Client.answer(client.admin.deleteConsumerGroupOffsets(topic, Set.of(partition)).all());
        offsets = Client.answer(client.admin.listConsumerGroupOffsets(topic).partitionsToOffsetAndMetadata());
        Failed.unless(offsets.size() == 3, "after a deletion the offsets are " + offsets);
        Client.answer(client.admin.deleteConsumerGroups(List.of(topic)).all());
        Compat.mustThrow(GroupIdNotFoundException.class,
                () -> Client.answer(client.admin.deleteConsumerGroups(List.of(topic)).all()));
    }

    private void cluster() throws Exception {
        String topic = topic("cluster");
        int node = Client.answer(client.admin.describeCluster().controller()).id();
        var dirs = Client.answer(client.admin.describeLogDirs(List.of(node)).allDescriptions()).get(node);
        boolean there = dirs.values().stream().anyMatch(dir -> dir.replicaInfos().containsKey(new TopicPartition(topic, 0)));
        Failed.unless(there, "the log directories don't hold the topic: " + dirs.keySet());
        var quorum = Client.answer(client.admin.describeMetadataQuorum().quorumInfo());
        Failed.unless(quorum.leaderId() >= 0 && !quorum.voters().isEmpty(), "the quorum is " + quorum);
        var features = Client.answer(client.admin.describeFeatures().featureMetadata());
        Failed.unless(features.finalizedFeatures().containsKey("metadata.version"), "the features are " + features);
        var moving = Client.answer(client.admin.listPartitionReassignments().reassignments());
        Failed.unless(moving.isEmpty(), "partitions are moving: " + moving);
        var cancelled = client.admin.alterPartitionReassignments(Map.of(new TopicPartition(topic, 0), Optional.empty()));
        Compat.mustThrow(NoReassignmentInProgressException.class,
                () -> Client.answer(cancelled.all()));
        Compat.mustThrow(ElectionNotNeededException.class, () -> {
            var elected = client.admin.electLeaders(ElectionType.PREFERRED, Set.of(new TopicPartition(topic, 0)));
            var outcome = Client.answer(elected.partitions()).get(new TopicPartition(topic, 0));
            if (outcome.isPresent()) {
                throw (Exception) outcome.get();
            }
        });
    }

    private void producers() throws Exception {
        TopicPartition partition = new TopicPartition(topic("producers"), 3);
        var described = Client.answer(client.admin.describeProducers(List.of(partition)).all()).get(partition);
        Failed.unless(described.activeProducers().size() == 1, "the producers are " + described.activeProducers());
        int last = described.activeProducers().get(0).lastSequence();
        Failed.unless(last == 9, "ten records in the partition, and the last sequence is " + last);
    }
}
