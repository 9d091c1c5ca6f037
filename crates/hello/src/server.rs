//! The web server: every page says which pod answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::files::{fail, host_name};

/// Bytes of a request's head that are read at the most.
const HEAD_MAX: u64 = 16 * 1024;

/// `hello [PORT]`: serves until it is stopped. The environment variable PORT stands in for the argument.
pub fn hello(arguments: &[String]) -> i32 {
    let port = arguments.first().cloned().or_else(|| std::env::var("PORT").ok()).unwrap_or_else(|| "80".to_owned());
    let Ok(port) = port.parse::<u16>() else { return fail("hello", &port, &"not a port") };
    // Both families where the host has IPv6.
    let listener = match TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port))) {
        Ok(listener) => listener,
        Err(error) => return fail("hello", &format!("port {port}"), &error),
    };
    println!("{} listens on port {port}", host_name());
    for stream in listener.incoming() {
        match stream {
            Ok(stream) => {
                std::thread::spawn(move || {
                    if let Err(error) = answer(stream) {
                        eprintln!("hello: a connection: {error}");
                    }
                });
            }
            Err(error) => eprintln!("hello: accept: {error}"),
        }
    }
    0
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let peer = stream.peer_addr().map_or_else(|_| "?".to_owned(), |a| a.ip().to_canonical().to_string());
    let mut head = BufReader::new(stream.try_clone()?.take(HEAD_MAX));
    let mut first = String::new();
    head.read_line(&mut first)?;
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    let path = first.split_whitespace().nth(1).unwrap_or("/").to_owned();
    println!("{peer} {}", first.trim_end());
    let (status, body) = page(&path, &peer);
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// What a path shows: `/hostname`, `/clientip`, `/env`, `/healthz`, `/fail`; anything else greets.
pub fn page(path: &str, peer: &str) -> (&'static str, String) {
    match path.split('?').next().unwrap_or(path) {
        "/hostname" => ("200 OK", host_name()),
        "/clientip" => ("200 OK", peer.to_owned()),
        "/healthz" => ("200 OK", "ok".to_owned()),
        "/fail" => ("500 Internal Server Error", "asked to fail\n".to_owned()),
        "/env" => {
            let mut lines: Vec<String> =
                std::env::vars_os().map(|(k, v)| format!("{}={}", k.to_string_lossy(), v.to_string_lossy())).collect();
            lines.sort();
            ("200 OK", lines.join("\n") + "\n")
        }
        _ => ("200 OK", format!("Hello from {}\n", host_name())),
    }
}

#[cfg(test)]
mod tests {
    use super::page;

    #[test]
    fn pages() {
        assert!(page("/", "10.0.0.1").1.starts_with("Hello from "));
        assert_eq!(page("/clientip", "10.0.0.1").1, "10.0.0.1");
        assert_eq!(page("/fail?x", "").0, "500 Internal Server Error");
    }
}
