import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicInteger;

import com.google.common.util.concurrent.FutureCallback;
import com.google.common.util.concurrent.Futures;
import com.google.common.util.concurrent.MoreExecutors;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordFailedException;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * The Kinesis Producer Library: {@code Producer STREAM COUNT PER-SECOND AGGREGATE}. It puts COUNT records of
 * different data, prints {@code put SHARD SEQUENCE-NUMBER DATA} or {@code refused DATA WHY} for each, and ends when all
 * are answered. It speaks nothing but TLS, on the port of localhost that TLS names.
 */
public final class Producer {
    private static synchronized void say(String line) {
        System.out.println(line);
    }

    private static String why(Throwable failure) {
        if (failure instanceof UserRecordFailedException refused) {
            return refused.getResult().getAttempts().stream()
                .map(attempt -> attempt.getErrorCode() + ": " + attempt.getErrorMessage()).toList().toString();
        }
        return failure.toString();
    }

    public static void main(String[] arguments) throws InterruptedException, ExecutionException {
        String stream = arguments[0];
        int count = Integer.parseInt(arguments[1]);
        int perSecond = Integer.parseInt(arguments[2]);
        long port = Long.parseLong(System.getenv("TLS"));
        KinesisProducer producer = new KinesisProducer(new KinesisProducerConfiguration()
            .setKinesisEndpoint("localhost").setKinesisPort(port)
            .setStsEndpoint("localhost").setStsPort(port)
            .setCloudwatchEndpoint("localhost").setCloudwatchPort(port)
            .setVerifyCertificate(false)
            .setRegion("us-east-1")
            .setCredentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create("compat", "compat")))
            .setMetricsLevel("detailed").setMetricsGranularity("shard").setMetricsUploadDelay(1000)
            .setLogLevel("warning")
            .setTempDirectory(System.getenv("SCRATCH"))
            .setAggregationEnabled(Boolean.parseBoolean(arguments[3]))
            .setRecordMaxBufferedTime(100)
            .setRecordTtl(60_000));
        AtomicInteger answered = new AtomicInteger();
        long began = System.nanoTime();
        for (int n = 0; n < count; n++) {
            String data = "kpl-" + n + "-" + "x".repeat(n % 300);
            Futures.addCallback(producer.addUserRecord(stream, "key-" + n % 211, ByteBuffer.wrap(data.getBytes(StandardCharsets.UTF_8))),
                new FutureCallback<UserRecordResult>() {
                    @Override
                    public void onSuccess(UserRecordResult result) {
                        say("put " + result.getShardId() + " " + result.getSequenceNumber() + " " + data);
                        answered.incrementAndGet();
                    }

                    @Override
                    public void onFailure(Throwable failure) {
                        say("refused " + data + " " + why(failure));
                        answered.incrementAndGet();
                    }
                }, MoreExecutors.directExecutor());
            long due = began + (n + 1) * 1_000_000_000L / perSecond;
            long early = due - System.nanoTime();
            if (early > 2_000_000) {
                Thread.sleep(early / 1_000_000);
            }
        }
        producer.flushSync();
        while (answered.get() < count) {
            Thread.sleep(20);
        }
        producer.destroy();
        System.exit(0);
    }
}
