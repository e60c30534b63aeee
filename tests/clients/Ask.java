// Asks a service with the HTTP client of the JDK: java Ask.java ADDRESS SAMPLE.json VERSION; prints {subset: answer}.
// VERSION is "default", which offers an upgrade to HTTP/2 with every request in clear text, or HTTP_1_1.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.StringJoiner;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

class Ask {
    public static void main(String[] arguments) throws Exception {
        HttpClient.Builder builder = HttpClient.newBuilder();
        if (!arguments[2].equals("default")) builder.version(HttpClient.Version.valueOf(arguments[2]));
        HttpClient client = builder.build();
        Map<String, String> sample = new LinkedHashMap<>();
        // a flat object of strings that JSON writes without escapes
        Matcher members = Pattern.compile("\"([^\"]+)\": \"([^\"]*)\"").matcher(Files.readString(Path.of(arguments[1])));
        while (members.find()) sample.put(members.group(1), members.group(2));
        String[] names = sample.keySet().toArray(new String[0]);
        StringJoiner answers = new StringJoiner(", ", "{", "}");
        for (int subset = 1; subset < 1 << names.length; subset++) {
            StringJoiner key = new StringJoiner("+");
            StringJoiner body = new StringJoiner(", ", "{", "}");
            for (int at = 0; at < names.length; at++) {
                if ((subset >> at & 1) == 0) continue;
                key.add(names[at]);
                body.add("\"" + names[at] + "\": \"" + sample.get(names[at]) + "\"");
            }
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0] + "/predict"))
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body.toString()))
                .build();
            HttpResponse<String> reply = client.send(request, HttpResponse.BodyHandlers.ofString());
            answers.add("\"" + key + "\": " + reply.body());
        }
        System.out.println(answers);
    }
}
