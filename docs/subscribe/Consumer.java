// Reads a subscriber's topics: java -cp 'libs/*' Consumer.java police.json [how many events, else for ever]
// Needs kafka-clients (org.apache.kafka) and Java 17. Each event is printed as one line of JSON.
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;

public class Consumer {
    static String known;

    static String text(String name) {
        Matcher found = Pattern.compile("\"" + name + "\":\\s*\"([^\"]*)\"").matcher(known);
        if (!found.find()) throw new IllegalArgumentException("the file has no " + name);
        return found.group(1);
    }

    static List<String> topics() {
        Matcher list = Pattern.compile("\"topics\":\\s*\\[([^\\]]*)\\]").matcher(known);
        list.find();
        Matcher names = Pattern.compile("\"([^\"]+)\"").matcher(list.group(1));
        List<String> topics = new ArrayList<>();
        while (names.find()) topics.add(names.group(1));
        return topics;
    }

    static String header(ConsumerRecord<String, String> record, String name) {
        return new String(record.headers().lastHeader(name).value(), StandardCharsets.UTF_8);
    }

    public static void main(String[] arguments) throws Exception {
        known = Files.readString(Path.of(arguments[0]));
        long wanted = arguments.length > 1 ? Long.parseLong(arguments[1]) : Long.MAX_VALUE;
        Properties settings = new Properties();
        settings.put("bootstrap.servers", text("bootstrap"));
        settings.put("security.protocol", text("security"));
        settings.put("sasl.mechanism", text("mechanism"));
        settings.put("sasl.jaas.config", "org.apache.kafka.common.security.scram.ScramLoginModule required username=\""
            + text("username") + "\" password=\"" + text("password") + "\";");
        settings.put("group.id", text("group_prefix") + "java"); // your groups begin with this
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        settings.put("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        Map<String, Long> last = new HashMap<>(); // keep this in your database, in the transaction that stores the event
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings)) {
            consumer.subscribe(topics());
            while (wanted > 0) {
                for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofSeconds(1))) {
                    String place = record.topic() + " " + record.key();
                    long sequence = Long.parseLong(header(record, "ce_sequence"));
                    if (sequence <= last.getOrDefault(place, 0L) || wanted == 0) continue; // known already
                    last.put(place, sequence);
                    System.out.println("{\"type\": \"" + header(record, "ce_type") + "\", \"key\": \"" + record.key()
                        + "\", \"sequence\": " + sequence + ", \"data\": " + record.value() + "}");
                    wanted--;
                }
                consumer.commitSync(); // after the events are stored, never before
            }
        }
    }
}
