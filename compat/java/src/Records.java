import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/** What is sent, and how it is compared with what was read. */
final class Records {
    static final int PARTITIONS = 4;
    static final int COUNT = 400;
    static final long APART_MS = 1000;
    static final long FIRST_TIMESTAMP = System.currentTimeMillis() - 3_600_000;

    private Records() {}

    /** Records of every shape, spread over the partitions; the header {@code n} numbers them. */
    static List<ProducerRecord<byte[], byte[]>> make(String topic, int count, String label) {
        List<ProducerRecord<byte[], byte[]>> made = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            byte[] key = n % 50 == 7 ? null : bytes(label + "-" + n);
            byte[] value = n % 50 == 13 ? null : value(n);
            List<Header> headers = new ArrayList<>();
            headers.add(new RecordHeader("n", bytes(label + n)));
            if (n % 5 == 0) {
                headers.add(new RecordHeader("empty", new byte[0]));
                headers.add(new RecordHeader("null", null));
                headers.add(new RecordHeader("twice", new byte[] {0, -1}));
                headers.add(new RecordHeader("twice", bytes("b")));
            }
            made.add(new ProducerRecord<>(topic, n % PARTITIONS, FIRST_TIMESTAMP + n * APART_MS, key, value, headers));
        }
        return made;
    }

    private static byte[] value(int n) {
        int length = n * 37 % 1500;
        byte[] value = new byte[length + n % 90];
        for (int i = 0; i < value.length; i++) {
            value[i] = i < length ? (byte) ((n * 7 + i) % 251) : (byte) 'x';
        }
        return value;
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static String number(ConsumerRecord<byte[], byte[]> record) {
        return new String(record.headers().lastHeader("n").value(), StandardCharsets.UTF_8);
    }

    /** The numbers of what was sent and of what was read, sorted, for comparison. */
    static List<String> numbersSent(List<ProducerRecord<byte[], byte[]>> records) {
        return records.stream()
                .map(record -> new String(record.headers().lastHeader("n").value(), StandardCharsets.UTF_8)).sorted().toList();
    }

    static List<String> numbersRead(List<ConsumerRecord<byte[], byte[]>> records) {
        return records.stream().map(Records::number).sorted().toList();
    }

    /** That what was read is exactly what was sent, in order within each partition, at offsets without a gap. */
    static void checkEqual(List<ProducerRecord<byte[], byte[]>> sent, List<ConsumerRecord<byte[], byte[]>> got) {
        Failed.unless(got.size() == sent.size(), "sent " + sent.size() + " records and read " + got.size());
        Map<Integer, List<ConsumerRecord<byte[], byte[]>>> read = new TreeMap<>();
        for (ConsumerRecord<byte[], byte[]> record : got) {
            read.computeIfAbsent(record.partition(), partition -> new ArrayList<>()).add(record);
        }
        int[] next = new int[PARTITIONS];
        for (ProducerRecord<byte[], byte[]> record : sent) {
            int place = next[record.partition()]++;
            List<ConsumerRecord<byte[], byte[]>> partition = read.getOrDefault(record.partition(), List.of());
            Failed.unless(place < partition.size(), "partition " + record.partition() + " has only " + partition.size());
            ConsumerRecord<byte[], byte[]> other = partition.get(place);
            Failed.unless(other.offset() == place,
                    "partition " + record.partition() + " has offset " + other.offset() + " at place " + place);
            boolean same = Arrays.equals(record.key(), other.key()) && Arrays.equals(record.value(), other.value())
                    && record.timestamp() == other.timestamp()
                    && Arrays.equals(record.headers().toArray(), other.headers().toArray());
            Failed.unless(same, "sent " + record + " and read " + other);
        }
    }
}
