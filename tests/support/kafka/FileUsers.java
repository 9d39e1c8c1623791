import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.NameCallback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.plain.PlainAuthenticateCallback;

/**
 * PLAIN users from a file of "user=password" lines, read at every authentication: a test revokes or
 * rotates a key by replacing the file. (Changing the broker's JAAS entry at run time is accepted
 * and changes nothing.) The file is named by the system property users.file.
 *
 * It also ends the broker when stdin does, so that a broker never outlives the test that started
 * it, however that test died.
 */
public final class FileUsers implements AuthenticateCallbackHandler {
    private final Path file = Path.of(System.getProperty("users.file"));

    static {
        Thread thread = new Thread(() -> {
            try {
                while (System.in.read() >= 0) {}
            } catch (IOException e) {
                // the same as its end
            }
            Runtime.getRuntime().halt(1);
        }, "end-with-parent");
        thread.setDaemon(true);
        thread.start();
    }

    @Override
    public void configure(Map<String, ?> configs, String mechanism, List<AppConfigurationEntry> jaas) {}

    @Override
    public void handle(Callback[] callbacks) throws IOException, UnsupportedCallbackException {
        String user = null;
        for (Callback callback : callbacks) {
            if (callback instanceof NameCallback name) {
                user = name.getDefaultName();
            } else if (callback instanceof PlainAuthenticateCallback plain) {
                String line = user + "=" + new String(plain.password());
                plain.authenticated(Files.readAllLines(file).contains(line));
            } else {
                throw new UnsupportedCallbackException(callback);
            }
        }
    }

    @Override
    public void close() {}
}
