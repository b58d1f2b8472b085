import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;

/**
 * Sends commands, one JSON object per line of standard input, and prints the result of each,
 * matched by "position" or by "id" (the one argument).
 */
public class Produce {
    static final ObjectMapper JSON = new ObjectMapper();
    static final String PREFIX = System.getenv().getOrDefault("TOPIC_PREFIX", "");
    static final long TIMEOUT_MS = 30_000;

    record Sent(String id, Future<RecordMetadata> acknowledgement) {
        String position() throws Exception {
            RecordMetadata at = acknowledgement.get();
            return at.partition() + ":" + at.offset();
        }
    }

    static Properties settings() {
        Properties settings = new Properties();
        settings.put(
                "bootstrap.servers",
                System.getenv().getOrDefault("KAFKA_BROKERS", "127.0.0.1:9092"));
        String strings = "org.apache.kafka.common.serialization.String";
        // No partitioner is set: the default hashes keys with murmur2.
        settings.put("key.serializer", strings + "Serializer");
        settings.put("value.serializer", strings + "Serializer");
        settings.put("enable.idempotence", "true");
        settings.put("acks", "all");
        settings.put("key.deserializer", strings + "Deserializer");
        settings.put("value.deserializer", strings + "Deserializer");
        settings.put("isolation.level", "read_committed");
        settings.put("enable.auto.commit", "false");
        return settings;
    }

    public static void main(String[] arguments) throws Exception {
        boolean byId = arguments.length > 0 && arguments[0].equals("id");
        try (KafkaConsumer<String, String> results = new KafkaConsumer<>(settings());
                KafkaProducer<String, String> producer = new KafkaProducer<>(settings())) {
            seekToEnd(results); // before anything is sent
            List<Sent> sent = send(producer);
            Map<String, JsonNode> found = new HashMap<>();
            long deadline = System.currentTimeMillis() + TIMEOUT_MS;
            for (Sent each : sent) {
                String wanted = byId ? each.id() : each.position();
                while (!found.containsKey(wanted)) {
                    if (System.currentTimeMillis() > deadline) {
                        System.err.println("some results have not arrived; no command is lost");
                        System.exit(1);
                    }
                    for (ConsumerRecord<String, String> read :
                            results.poll(Duration.ofMillis(100))) {
                        JsonNode result = JSON.readTree(read.value());
                        found.put(byId ? result.path("id").asText() : position(result), result);
                    }
                }
                JsonNode result = found.get(wanted);
                System.out.printf(
                        "%s %s %s %s%n",
                        position(result),
                        result.path("id").asText(),
                        result.path("outcome").asText(),
                        result.path("reason").asText("-"));
            }
        }
    }

    static void seekToEnd(KafkaConsumer<String, String> results) {
        List<TopicPartition> all = new ArrayList<>();
        results.partitionsFor(PREFIX + "results")
                .forEach(each -> all.add(new TopicPartition(each.topic(), each.partition())));
        results.assign(all); // without a group
        results.seekToEnd(all);
        all.forEach(results::position); // seekToEnd is lazy; position() resolves it now
    }

    static List<Sent> send(KafkaProducer<String, String> producer) throws Exception {
        List<Sent> sent = new ArrayList<>();
        BufferedReader lines =
                new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonNode command = JSON.readTree(line);
            String account = command.path("account").asText();
            var record = new ProducerRecord<>(PREFIX + "commands", account, line);
            sent.add(new Sent(command.path("id").asText(), producer.send(record)));
        }
        producer.flush();
        return sent;
    }

    static String position(JsonNode result) {
        return result.path("partition").asInt() + ":" + result.path("offset").asLong();
    }
}
