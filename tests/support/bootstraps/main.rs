// A runtime for `provided.al2023` with nothing but Rust's standard library. It does what its event says: {"do": "..."}.
use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

const PREFIX: &str = "/2018-06-01/runtime";

struct Api {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Api {
    fn new() -> std::io::Result<Api> {
        let stream = TcpStream::connect(env::var("AWS_LAMBDA_RUNTIME_API").expect("a Runtime API"))?;
        stream.set_nodelay(true)?;
        Ok(Api { reader: BufReader::new(stream.try_clone()?), stream })
    }

    fn call(&mut self, head: &str, body: &[u8]) -> std::io::Result<(String, Vec<u8>)> {
        self.stream.write_all(format!("{head}Host: x\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())?;
        self.stream.write_all(body)?;
        self.answer()
    }

    /// The request id, where there is one, and the body.
    fn answer(&mut self) -> std::io::Result<(String, Vec<u8>)> {
        let (mut id, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            self.reader.read_line(&mut line)?;
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(": ") {
                match name.to_ascii_lowercase().as_str() {
                    "lambda-runtime-aws-request-id" => id = value.to_string(),
                    "content-length" => length = value.parse().expect("a number"),
                    _ => {}
                }
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok((id, body))
    }

    fn stream(&mut self, id: &str, fails: bool) -> std::io::Result<()> {
        let head = format!(
            "POST {PREFIX}/invocation/{id}/response HTTP/1.1\r\nHost: x\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n\
             Transfer-Encoding: chunked\r\nTrailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes())?;
        for piece in ["one ", "two"] {
            self.stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes())?;
        }
        // {"errorType":"Late","errorMessage":"in the middle"}
        let trailers = "Lambda-Runtime-Function-Error-Type: Late\r\nLambda-Runtime-Function-Error-Body: \
                        eyJlcnJvclR5cGUiOiJMYXRlIiwiZXJyb3JNZXNzYWdlIjoiaW4gdGhlIG1pZGRsZSJ9\r\n";
        self.stream.write_all(format!("0\r\n{}\r\n", if fails { trailers } else { "" }).as_bytes())?;
        self.answer().map(|_| ())
    }
}

fn main() -> std::io::Result<()> {
    let mut api = Api::new()?;
    loop {
        let (id, event) = api.call(&format!("GET {PREFIX}/invocation/next HTTP/1.1\r\n"), b"")?;
        let text = String::from_utf8_lossy(&event).into_owned();
        let wants = |name: &str| text.contains(&format!("\"do\": \"{name}\""));
        if wants("error") {
            let error = br#"{"errorType":"MyError","errorMessage":"no","stackTrace":[]}"#;
            api.call(&format!("POST {PREFIX}/invocation/{id}/error HTTP/1.1\r\n"), error)?;
        } else if wants("stream") || wants("late") {
            api.stream(&id, wants("late"))?;
        } else if wants("panic") {
            panic!("at once");
        } else if wants("sleep") {
            std::thread::sleep(std::time::Duration::from_secs(60));
        } else {
            let answer = format!("{{\"hello\": {text}}}");
            api.call(&format!("POST {PREFIX}/invocation/{id}/response HTTP/1.1\r\n"), answer.as_bytes())?;
        }
    }
}
