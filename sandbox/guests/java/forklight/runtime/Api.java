package forklight.runtime;

import java.io.BufferedInputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Locale;
import java.util.Map;

/** The Runtime API over one connection, one request at a time. */
final class Api {
    private static final String PREFIX = "/2018-06-01/runtime/";

    static final class Answer {
        int status;
        /** By name in lower case. */
        final Map<String, String> headers = new HashMap<>();
        byte[] body;
    }

    private final String host;
    private final InputStream in;
    private final OutputStream out;

    Api(String address) throws IOException {
        int colon = address.lastIndexOf(':');
        host = address;
        Socket socket = new Socket(address.substring(0, colon), Integer.parseInt(address.substring(colon + 1)));
        socket.setTcpNoDelay(true);
        in = new BufferedInputStream(socket.getInputStream(), 16384);
        out = socket.getOutputStream();
    }

    /** The next event. */
    Answer next() throws IOException {
        write("GET", "invocation/next", "", new byte[0]);
        Answer answer = read();
        if (answer.status != 200) {
            throw new IOException("no event, but status " + answer.status);
        }
        return answer;
    }

    /** What is refused has been told to the caller of the function already, so it is only noted. */
    void post(String path, byte[] json) throws IOException {
        write("POST", path, "Content-Type: application/json\r\nContent-Length: " + json.length + "\r\n", json);
        Answer answer = read();
        if (answer.status != 202) {
            String text = new String(answer.body, StandardCharsets.UTF_8);
            System.err.println("The answer was refused with status " + answer.status + ": " + text);
        }
    }

    private void write(String method, String path, String headers, byte[] body) throws IOException {
        String head = method + " " + PREFIX + path + " HTTP/1.1\r\nHost: " + host + "\r\n" + headers + "\r\n";
        byte[] first = head.getBytes(StandardCharsets.ISO_8859_1);
        byte[] all = new byte[first.length + body.length];
        System.arraycopy(first, 0, all, 0, first.length);
        System.arraycopy(body, 0, all, first.length, body.length);
        out.write(all);
    }

    private Answer read() throws IOException {
        Answer answer = new Answer();
        answer.status = Integer.parseInt(line().split(" ")[1]);
        for (String line = line(); !line.isEmpty(); line = line()) {
            int colon = line.indexOf(':');
            answer.headers.put(line.substring(0, colon).toLowerCase(Locale.ROOT), line.substring(colon + 1).trim());
        }
        int length = Integer.parseInt(answer.headers.getOrDefault("content-length", "0"));
        answer.body = in.readNBytes(length);
        if (answer.body.length < length) {
            throw new EOFException("the worker is gone");
        }
        return answer;
    }

    private String line() throws IOException {
        byte[] bytes = new byte[128];
        int used = 0;
        for (int next = in.read(); next != '\n'; next = in.read()) {
            if (next < 0) {
                throw new EOFException("the worker is gone");
            }
            if (used == bytes.length) {
                bytes = java.util.Arrays.copyOf(bytes, used * 2);
            }
            bytes[used++] = (byte) next;
        }
        return new String(bytes, 0, used, StandardCharsets.UTF_8).trim();
    }
}
