import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/**
 * An AdminClient behind a pipe: one JSON request a line on stdin, one JSON answer a line on stdout
 * ({"ok":...} or {"error":...}). One living process instead of a JVM start per command.
 */
public final class AdminPipe {
    private static final ObjectMapper JSON = new ObjectMapper();

    private final Admin admin;

    private AdminPipe(Admin admin) {
        this.admin = admin;
    }

    public static void main(String[] args) throws Exception {
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        Map<String, Object> config = new HashMap<>();
        config.put("bootstrap.servers", args[0]);
        config.put("reconnect.backoff.max.ms", "200");
        config.put("request.timeout.ms", "5000");
        config.put("default.api.timeout.ms", "20000");
        try (Admin admin = Admin.create(config)) {
            AdminPipe pipe = new AdminPipe(admin);
            BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                ObjectNode answer = JSON.createObjectNode();
                try {
                    answer.set("ok", JSON.valueToTree(pipe.run(JSON.readTree(line))));
                } catch (Exception e) {
                    Throwable cause = e instanceof ExecutionException && e.getCause() != null ? e.getCause() : e;
                    answer.put("error", cause.getClass().getSimpleName() + ": " + cause.getMessage());
                }
                out.println(JSON.writeValueAsString(answer));
            }
        }
    }

    private Object run(JsonNode request) throws Exception {
        String topic = request.path("topic").asText(null);
        switch (request.get("do").asText()) {
            case "ping":
                return admin.describeCluster().nodes().get(20, TimeUnit.SECONDS).size();
            case "create_topic": {
                NewTopic wanted = new NewTopic(topic, request.get("partitions").asInt(), (short) 1);
                wanted.configs(strings(request.get("config")));
                admin.createTopics(List.of(wanted)).all().get();
                return true;
            }
            case "delete_topic":
                admin.deleteTopics(List.of(topic)).all().get();
                return true;
            case "add_partitions":
                admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(request.get("count").asInt()))).all().get();
                return true;
            case "topics":
                return new ArrayList<>(admin.listTopics().names().get());
            case "configure_topic": {
                Collection<AlterConfigOp> changes = new ArrayList<>();
                strings(request.get("config")).forEach((name, value) -> changes.add(new AlterConfigOp(
                        new ConfigEntry(name, value),
                        value == null ? AlterConfigOp.OpType.DELETE : AlterConfigOp.OpType.SET)));
                ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
                admin.incrementalAlterConfigs(Map.of(resource, changes)).all().get();
                return true;
            }
            case "end_offsets": {
                Map<TopicPartition, OffsetSpec> wanted = new HashMap<>();
                TopicDescription description = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic);
                for (TopicPartitionInfo partition : description.partitions()) {
                    wanted.put(new TopicPartition(topic, partition.partition()), OffsetSpec.latest());
                }
                Map<String, Long> ends = new HashMap<>();
                admin.listOffsets(wanted).all().get().forEach(
                        (partition, offset) -> ends.put(String.valueOf(partition.partition()), offset.offset()));
                return ends;
            }
            case "grant":
                admin.createAcls(bindings(request)).all().get();
                return true;
            case "revoke": {
                List<org.apache.kafka.common.acl.AclBindingFilter> filters = new ArrayList<>();
                bindings(request).forEach(binding -> filters.add(binding.toFilter()));
                return admin.deleteAcls(filters).all().get().size();
            }
            default:
                throw new IllegalArgumentException("unknown request " + request);
        }
    }

    /** {"user":..., "operations":["WRITE"...], "resource":"TOPIC", "name":...} */
    private static List<AclBinding> bindings(JsonNode request) {
        ResourceType type = ResourceType.fromString(request.path("resource").asText("TOPIC"));
        ResourcePattern pattern = new ResourcePattern(type, request.get("name").asText(), PatternType.LITERAL);
        List<AclBinding> bindings = new ArrayList<>();
        for (JsonNode operation : request.get("operations")) {
            bindings.add(new AclBinding(pattern, new AccessControlEntry("User:" + request.get("user").asText(), "*",
                    AclOperation.fromString(operation.asText()), AclPermissionType.ALLOW)));
        }
        return bindings;
    }

    private static Map<String, String> strings(JsonNode object) {
        Map<String, String> result = new HashMap<>();
        if (object != null) {
            object.properties().forEach(field -> result.put(field.getKey(),
                    field.getValue().isNull() ? null : field.getValue().asText()));
        }
        return result;
    }
}
