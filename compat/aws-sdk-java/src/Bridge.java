import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.stream.Collectors;

import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.awscore.exception.AwsServiceException;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.core.SdkField;
import software.amazon.awssdk.core.SdkPojo;
import software.amazon.awssdk.core.protocol.MarshallingType;
import software.amazon.awssdk.core.traits.ListTrait;
import software.amazon.awssdk.core.traits.MapTrait;
import software.amazon.awssdk.core.util.SdkAutoConstructList;
import software.amazon.awssdk.core.util.SdkAutoConstructMap;
import software.amazon.awssdk.core.util.VersionInfo;
import software.amazon.awssdk.protocols.jsoncore.JsonNode;
import software.amazon.awssdk.protocols.jsoncore.JsonNodeParser;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.retries.StandardRetryStrategy;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardEvent;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardRequest;
import software.amazon.awssdk.services.kinesis.model.SubscribeToShardResponseHandler;
import software.amazon.awssdk.utils.builder.SdkBuilder;

/** The AWS SDK for Java v2, its async HTTP/2 client, on the protocol of ../../lib/kinesis-steps/bridge.py. */
public final class Bridge {
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

    private static KinesisAsyncClient client(int attempts) {
        return KinesisAsyncClient.builder()
            .endpointOverride(URI.create(System.getenv("KINESIS")))
            .region(Region.US_EAST_1)
            .credentialsProvider(StaticCredentialsProvider.create(AwsBasicCredentials.create("compat", "compat")))
            .overrideConfiguration(o -> o.retryStrategy(StandardRetryStrategy.builder().maxAttempts(attempts).build()))
            .build();
    }

    private static synchronized void say(String line) {
        OUT.println(line);
    }

    private static void event(int id, SdkPojo event) {
        say("{\"id\":" + id + ",\"event\":" + plain(event) + "}");
    }

    private static void answer(int id, String answer) {
        say("{\"id\":" + id + ",\"answer\":" + answer + "}");
    }

    private static void error(int id, Throwable thrown) {
        Throwable why = thrown instanceof CompletionException ? thrown.getCause() : thrown;
        String code = "Client";
        String message = String.valueOf(why);
        if (why instanceof AwsServiceException refusal) {
            code = refusal.awsErrorDetails().errorCode();
            message = refusal.awsErrorDetails().errorMessage();
        } else {
            why.printStackTrace();
        }
        say("{\"id\":" + id + ",\"error\":{\"code\":" + text(code) + ",\"message\":" + text(message) + "}}");
    }

    /** A value from JSON as the SDK's field takes it. */
    private static Object sent(SdkField<?> field, JsonNode value) {
        MarshallingType<?> type = field.marshallingType();
        if (type == MarshallingType.STRING) {
            return value.asString();
        } else if (type == MarshallingType.INTEGER) {
            return Integer.valueOf(value.asNumber());
        } else if (type == MarshallingType.LONG) {
            return Long.valueOf(value.asNumber());
        } else if (type == MarshallingType.BOOLEAN) {
            return value.asBoolean();
        } else if (type == MarshallingType.INSTANT) {
            return Instant.ofEpochMilli(Math.round(Double.parseDouble(value.asNumber()) * 1000));
        } else if (type == MarshallingType.SDK_BYTES) {
            return SdkBytes.fromByteArray(Base64.getDecoder().decode(value.asString()));
        } else if (type == MarshallingType.SDK_POJO) {
            return filled(field.constructor().get(), value);
        } else if (type == MarshallingType.LIST) {
            SdkField<?> member = field.getTrait(ListTrait.class).memberFieldInfo();
            return value.asArray().stream().map(one -> sent(member, one)).collect(Collectors.toList());
        } else if (type == MarshallingType.MAP) {
            SdkField<?> member = field.getTrait(MapTrait.class).valueFieldInfo();
            Map<String, Object> all = new HashMap<>();
            value.asObject().forEach((key, one) -> all.put(key, sent(member, one)));
            return all;
        }
        throw new IllegalArgumentException(field.memberName() + " is a " + type);
    }

    private static Object filled(SdkPojo builder, JsonNode members) {
        Map<String, SdkField<?>> fields = new HashMap<>();
        builder.sdkFields().forEach(field -> fields.put(field.memberName(), field));
        members.asObject().forEach((name, value) -> {
            SdkField<?> field = fields.get(name);
            if (field == null) {
                throw new IllegalArgumentException("the SDK has no " + name);
            }
            field.set(builder, sent(field, value));
        });
        return ((SdkBuilder<?, ?>) builder).build();
    }

    /** An answer as JSON; what the service left out is left out. */
    private static String plain(Object value) {
        if (value instanceof SdkPojo pojo) {
            List<String> members = new ArrayList<>();
            for (SdkField<?> field : pojo.sdkFields()) {
                Object one = field.getValueOrDefault(pojo);
                if (one != null && !(one instanceof SdkAutoConstructList) && !(one instanceof SdkAutoConstructMap)) {
                    members.add(text(field.memberName()) + ":" + plain(one));
                }
            }
            return "{" + String.join(",", members) + "}";
        } else if (value instanceof List<?> list) {
            return list.stream().map(Bridge::plain).collect(Collectors.joining(",", "[", "]"));
        } else if (value instanceof Map<?, ?> map) {
            return map.entrySet().stream().map(one -> text((String) one.getKey()) + ":" + plain(one.getValue()))
                .collect(Collectors.joining(",", "{", "}"));
        } else if (value instanceof SdkBytes bytes) {
            return text(Base64.getEncoder().encodeToString(bytes.asByteArrayUnsafe()));
        } else if (value instanceof Instant at) {
            return Double.toString(at.toEpochMilli() / 1000.0);
        } else if (value instanceof Number || value instanceof Boolean) {
            return value.toString();
        }
        return text(String.valueOf(value));
    }

    private static String text(String value) {
        if (value == null) {
            return "null";
        }
        StringBuilder out = new StringBuilder("\"");
        for (char c : value.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ' || c > '~') {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }

    private static CompletableFuture<?> call(KinesisAsyncClient client, String operation, Object request)
            throws ReflectiveOperationException {
        String method = Character.toLowerCase(operation.charAt(0)) + operation.substring(1);
        return (CompletableFuture<?>) KinesisAsyncClient.class.getMethod(method, request.getClass()).invoke(client, request);
    }

    private static void answer(KinesisAsyncClient client, int id, String operation, JsonNode parameters) {
        try {
            Class<?> type = Class.forName("software.amazon.awssdk.services.kinesis.model." + operation + "Request");
            Object request = filled((SdkPojo) type.getMethod("builder").invoke(null), parameters);
            if (request instanceof SubscribeToShardRequest subscription) {
                client.subscribeToShard(subscription, SubscribeToShardResponseHandler.builder()
                    .subscriber(event -> {
                        if (event instanceof SubscribeToShardEvent records) {
                            event(id, records);
                        }
                    }).build()).whenComplete((done, thrown) -> {
                        if (thrown != null) {
                            error(id, thrown);
                        } else {
                            answer(id, "{}");
                        }
                    });
                return;
            }
            call(client, operation, request).whenComplete((answered, thrown) -> {
                if (thrown != null) {
                    error(id, thrown);
                } else {
                    answer(id, plain(answered));
                }
            });
        } catch (ReflectiveOperationException | RuntimeException why) {
            error(id, why);
        }
    }

    public static void main(String[] arguments) throws Exception {
        KinesisAsyncClient patient = client(12);
        KinesisAsyncClient single = client(1);
        JsonNodeParser parser = JsonNodeParser.create();
        say("{\"version\":" + text(VersionInfo.SDK_VERSION) + "}");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Map<String, JsonNode> request = parser.parse(line).asObject();
            answer(request.get("retry").asBoolean() ? patient : single, Integer.parseInt(request.get("id").asNumber()),
                request.get("operation").asString(), request.get("parameters"));
        }
        System.exit(0);
    }
}
