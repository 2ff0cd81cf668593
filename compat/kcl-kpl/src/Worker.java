import java.net.URI;
import java.nio.charset.StandardCharsets;

import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClientBuilder;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.common.KinesisClientUtil;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.exceptions.InvalidStateException;
import software.amazon.kinesis.exceptions.ShutdownException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.MetricsLevel;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.RetrievalConfig;
import software.amazon.kinesis.retrieval.fanout.FanOutConfig;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * A worker of the Kinesis Client Library: {@code Worker polling|fan-out STREAM APPLICATION}. It prints a line for
 * everything that its processors are given ({@code record SHARD SEQUENCE-NUMBER.SUB KEY DATA}, {@code started SHARD},
 * {@code ended SHARD}), data being text without blanks, and leaves when its standard input ends.
 */
public final class Worker {
    private static synchronized void say(String line) {
        System.out.println(line);
    }

    private static final class Processor implements ShardRecordProcessor {
        private String shard;

        @Override
        public void initialize(InitializationInput input) {
            shard = input.shardId();
            say("started " + shard);
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            for (KinesisClientRecord record : input.records()) {
                String data = StandardCharsets.UTF_8.decode(record.data()).toString();
                say("record " + shard + " " + record.sequenceNumber() + "." + record.subSequenceNumber() + " "
                    + record.partitionKey() + " " + data);
            }
            try {
                input.checkpointer().checkpoint();
            } catch (InvalidStateException | ShutdownException why) {
                say("failed to checkpoint in " + shard + ": " + why);
            }
        }

        @Override
        public void leaseLost(LeaseLostInput input) {
            say("lost " + shard);
        }

        @Override
        public void shardEnded(ShardEndedInput input) {
            say("ended " + shard);
            try {
                input.checkpointer().checkpoint();
            } catch (InvalidStateException | ShutdownException why) {
                say("failed to checkpoint at the end of " + shard + ": " + why);
            }
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {
            say("leaving " + shard);
        }
    }

    public static void main(String[] arguments) throws Exception {
        boolean fanOut = arguments[0].equals("fan-out");
        String stream = arguments[1];
        String application = arguments[2];
        StaticCredentialsProvider credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("compat", "compat"));
        URI beside = URI.create(System.getenv("BESIDE"));
        KinesisAsyncClientBuilder builder = KinesisAsyncClient.builder()
            .endpointOverride(URI.create(System.getenv("KINESIS"))).region(Region.US_EAST_1).credentialsProvider(credentials);
        KinesisAsyncClient kinesis = KinesisClientUtil.createKinesisAsyncClient(builder);
        DynamoDbAsyncClient tables = DynamoDbAsyncClient.builder()
            .endpointOverride(beside).region(Region.US_EAST_1).credentialsProvider(credentials).build();
        CloudWatchAsyncClient metrics = CloudWatchAsyncClient.builder()
            .endpointOverride(URI.create(System.getenv("KINESIS"))).region(Region.US_EAST_1).credentialsProvider(credentials).build();

        SingleStreamTracker tracker = new SingleStreamTracker(stream,
            InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON));
        ConfigsBuilder configs = new ConfigsBuilder(tracker, application, kinesis, tables, metrics, "worker-" + application,
            Processor::new);
        RetrievalConfig retrieval = configs.retrievalConfig();
        retrieval.retrievalSpecificConfig(fanOut
            ? new FanOutConfig(kinesis).streamName(stream).applicationName(application)
            : new PollingConfig(stream, kinesis).idleTimeBetweenReadsInMillis(250));
        // Everything that a worker does at intervals, often: the steps wait for it.
        var leases = configs.leaseManagementConfig().failoverTimeMillis(5000).shardSyncIntervalMillis(5000);
        leases.workerUtilizationAwareAssignmentConfig().disableWorkerMetrics(true);
        Scheduler scheduler = new Scheduler(
            configs.checkpointConfig(),
            configs.coordinatorConfig().parentShardPollIntervalMillis(500).shardConsumerDispatchPollIntervalMillis(200),
            leases,
            configs.lifecycleConfig(),
            configs.metricsConfig().metricsLevel(MetricsLevel.DETAILED).metricsBufferTimeMillis(1000),
            configs.processorConfig().callProcessRecordsEvenForEmptyRecordList(false),
            retrieval);
        Thread running = new Thread(scheduler, "scheduler");
        running.setDaemon(true);
        running.start();
        while (System.in.read() >= 0) {
            // What is sent does not matter, only that it ends.
        }
        scheduler.startGracefulShutdown().get();
        say("left");
        System.exit(0);
    }
}
