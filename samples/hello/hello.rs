//! A small web server with nothing but the standard library: the sample application of `cargo xtask demo`.
//! It answers `Hello from <host> (version …)`, and ends at once when it is asked to.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

fn main() {
    let version = std::env::var("VERSION").unwrap_or_else(|_| "1.0".to_owned());
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let listener = TcpListener::bind("0.0.0.0:8000").expect("port 8000 is free in a container");
    println!("listening on port 8000");
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        let mut line = String::new();
        if BufReader::new(&stream).read_line(&mut line).is_err() {
            continue;
        }
        println!("{}", line.trim_end());
        let body = format!("Hello from {} (version {version})\n", host.trim());
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    }
}
