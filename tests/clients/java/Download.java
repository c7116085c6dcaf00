// Downloads an attachment with Java. See ../README.md for what goes in and out.
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.OpenOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

public class Download {
    public static void main(String[] arguments) throws Exception {
        var env = System.getenv();
        var url = "%s/api/v2/clients/%s/attachments/%s/content"
                .formatted(env.get("BASE_URL"), env.get("CLIENT_ID"), env.get("ATTACHMENT_ID"));
        var out = Path.of(env.get("OUT"));
        var request = HttpRequest.newBuilder(URI.create(url)).header("Authorization", "Bearer " + env.get("TOKEN"));
        if (env.get("MODE").equals("rest")) {
            request.header("Range", "bytes=" + Files.size(out) + "-").header("If-Range", env.get("ETAG"));
        }
        var response = HttpClient.newHttpClient().send(request.build(), BodyHandlers.ofInputStream());
        try (InputStream body = response.body()) {
            if (response.statusCode() < 300) {
                // 206 is the rest; 200 is all of it, since the content has changed meanwhile.
                var options = response.statusCode() == 206
                        ? new OpenOption[] {StandardOpenOption.APPEND}
                        : new OpenOption[] {StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING, StandardOpenOption.WRITE};
                try (var file = Files.newOutputStream(out, options)) {
                    body.transferTo(file);
                }
            }
        }
        System.out.println("{\"status\":" + response.statusCode() + "}");
    }
}
