// The documented sample for Java, completed. See ../README.md for what goes in and out.

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

public class Upload {
    public static void main(String[] args) throws IOException {
        String mode = System.getenv("MODE");
        if (mode.equals("literal")) { // the sample sends no token
            answer(open());
            return;
        }
        if (mode.equals("documented")) {
            answer(authorized());
        }
        answer(upload(Path.of(System.getenv("FILE"))));
    }

    static HttpURLConnection open() throws IOException {
        URL obj = new URL(System.getenv("BASE_URL") + "/api/v2/clients/" + System.getenv("CLIENT_ID") + "/attachments/"
            + System.getenv("ATTACHMENT_ID"));
        HttpURLConnection con = (HttpURLConnection) obj.openConnection();
        con.setRequestMethod("POST");
        return con;
    }

    static HttpURLConnection authorized() throws IOException {
        HttpURLConnection con = open();
        con.setRequestProperty("Authorization", "Bearer " + System.getenv("TOKEN"));
        return con;
    }

    static HttpURLConnection upload(Path file) throws IOException {
        String boundary = "----attachd-java-client-7d1f0b";
        String head = "--" + boundary + "\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + file.getFileName()
            + "\"\r\nContent-Type: application/octet-stream\r\n\r\n";
        HttpURLConnection con = authorized();
        con.setRequestProperty("Content-Type", "multipart/form-data; boundary=" + boundary);
        con.setRequestProperty("Accept", "application/json");
        con.setDoOutput(true);
        try (OutputStream out = con.getOutputStream()) {
            out.write(head.getBytes(StandardCharsets.UTF_8));
            Files.copy(file, out);
            out.write(("\r\n--" + boundary + "--\r\n").getBytes(StandardCharsets.UTF_8));
        }
        return con;
    }

    static void answer(HttpURLConnection con) throws IOException {
        int responseCode = con.getResponseCode();
        // Read to its end, so that the connection is kept.
        try (InputStream in = responseCode < 400 ? con.getInputStream() : con.getErrorStream()) {
            String response = new String(in.readAllBytes(), StandardCharsets.UTF_8);
            System.out.println("{\"status\": " + responseCode + ", \"body\": " + response.replace("\n", " ") + "}");
        }
    }
}
