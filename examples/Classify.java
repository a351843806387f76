// Java by HTTP, with nothing but the JDK (11 or later): java Classify.java http://HOST:PORT IMAGE

import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import javax.imageio.ImageIO;

public class Classify {
    public static void main(String[] arguments) throws Exception {
        BufferedImage image = ImageIO.read(new File(arguments[1]));
        int height = image.getHeight(), width = image.getWidth();
        byte[] pixels = new byte[height * width];
        for (int y = 0; y < height; y++) {
            for (int x = 0; x < width; x++) {
                pixels[y * width + x] = (byte) image.getRaster().getSample(x, y, 0);
            }
        }
        // The pixels go as they are, behind the JSON, which says how many they are (the binary tensor extension).
        String json = String.format(
            "{\"inputs\": [{\"name\": \"images\", \"datatype\": \"UINT8\", \"shape\": [1, %d, %d],"
                + " \"parameters\": {\"binary_data_size\": %d}}], \"outputs\": [{\"name\": \"classes\"}]}",
            height, width, pixels.length);
        byte[] head = json.getBytes(StandardCharsets.UTF_8);
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        body.write(head);
        body.write(pixels);
        HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + "/v2/models/mnist/infer"))
            .version(HttpClient.Version.HTTP_1_1)
            .timeout(Duration.ofSeconds(10))
            .header("Inference-Header-Content-Length", String.valueOf(head.length))
            .POST(HttpRequest.BodyPublishers.ofByteArray(body.toByteArray()))
            .build();
        HttpResponse<String> answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        if (answer.statusCode() != 200) {
            throw new IllegalStateException(answer.statusCode() + ": " + answer.body());
        }
        Matcher digit = Pattern.compile("\"data\":\\[(\\d+)\\]").matcher(answer.body()); // a JSON library does it better
        if (!digit.find()) {
            throw new IllegalStateException("no class in " + answer.body());
        }
        System.out.println(digit.group(1));
    }
}
