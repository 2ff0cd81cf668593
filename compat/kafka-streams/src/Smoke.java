import java.time.Duration;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.streams.tests.SmokeTestDriver;

/**
 * What `StreamsSmokeTest run` does, with fewer records: its generator and its verification, which knows what
 * exactly_once_v2 has to give.
 */
public final class Smoke {
    private static final int KEYS = 10;
    private static final int RECORDS_A_KEY = 400;

    private Smoke() {}

    public static void main(String[] arguments) {
        String brokers = arguments[0];
        Map<String, Set<Integer>> data =
            SmokeTestDriver.generate(brokers, KEYS, RECORDS_A_KEY, Duration.ZERO);
        System.out.println("generated");
        boolean passed = SmokeTestDriver.verify(brokers, data, RECORDS_A_KEY, true).passed();
        System.out.println(passed ? "SUCCESS" : "FAILURE");
        System.exit(0);
    }
}
