//! `wget`: fetches a page over plain HTTP.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::dns;
use crate::files::fail;

struct Options {
    quiet: bool,
    timeout: Duration,
    /// `None`: named after the URL; `-`: standard output.
    file: Option<String>,
    url: String,
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut out = Options { quiet: false, timeout: Duration::from_secs(30), file: None, url: String::new() };
    let mut rest = arguments.iter();
    while let Some(word) = rest.next() {
        let mut value = |attached: &str| {
            let attached = attached.trim_start_matches('=');
            if attached.is_empty() { rest.next().cloned().ok_or_else(|| format!("{word}: needs a value")) } else { Ok(attached.to_owned()) }
        };
        if word == "-q" {
            out.quiet = true;
        } else if word == "-qO-" {
            out.quiet = true;
            out.file = Some("-".to_owned());
        } else if let Some(attached) = word.strip_prefix("-O") {
            out.file = Some(value(attached)?);
        } else if let Some(attached) = word.strip_prefix("--timeout").or_else(|| word.strip_prefix("-T")) {
            let text = value(attached)?;
            out.timeout = Duration::from_secs(text.parse().map_err(|_| format!("{text}: not a number of seconds"))?);
        } else if word.starts_with('-') {
            return Err(format!("{word}: no such option"));
        } else {
            out.url = word.clone();
        }
    }
    if out.url.is_empty() { Err("which URL?".to_owned()) } else { Ok(out) }
}

/// Host, port and path of a URL.
fn split(url: &str) -> Result<(String, u16, String), String> {
    if url.starts_with("https://") {
        return Err("only plain http is spoken here".to_owned());
    }
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.find('/').map_or((rest, "/"), |i| rest.split_at(i));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().map_err(|_| format!("{port}: not a port"))?),
        _ => (authority, 80),
    };
    Ok((host.trim_matches(['[', ']']).to_owned(), port, path.to_owned()))
}

pub fn main(arguments: &[String]) -> i32 {
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(why) => return fail("wget", "usage", &why),
    };
    match fetch(&options) {
        Ok(()) => 0,
        Err(why) => fail("wget", &options.url, &why),
    }
}

fn fetch(options: &Options) -> Result<(), String> {
    let (host, port, path) = split(&options.url)?;
    let address = dns::resolve(&host).map_err(|why| format!("bad address '{host}': {why}"))?;
    if !options.quiet {
        eprintln!("Connecting to {host} ({address}:{port})");
    }
    let text = |e: io::Error| e.to_string();
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), options.timeout).map_err(text)?;
    stream.set_read_timeout(Some(options.timeout)).map_err(text)?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: wget\r\nConnection: close\r\n\r\n").map_err(text)?;
    let mut reader = BufReader::new(stream);
    let mut status = String::new();
    reader.by_ref().take(16 * 1024).read_line(&mut status).map_err(text)?;
    let mut line = String::new();
    while reader.by_ref().take(16 * 1024).read_line(&mut line).map_err(text)? > 2 {
        line.clear();
    }
    if status.split_whitespace().nth(1).is_none_or(|code| !code.starts_with('2')) {
        return Err(format!("server returned error: {}", status.trim_end()));
    }
    match options.file.as_deref() {
        Some("-") => io::copy(&mut reader, &mut io::stdout().lock()).map_err(text)?,
        other => {
            let name =
                other.map_or_else(|| path.rsplit('/').next().filter(|n| !n.is_empty()).unwrap_or("index.html").to_owned(), str::to_owned);
            io::copy(&mut reader, &mut File::create(name).map_err(text)?).map_err(text)?
        }
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        assert_eq!(split("web").unwrap(), ("web".into(), 80, "/".into()));
        assert_eq!(split("http://web:8080/a?b").unwrap(), ("web".into(), 8080, "/a?b".into()));
        assert_eq!(split("http://[::1]:81").unwrap(), ("::1".into(), 81, "/".into()));
        assert!(split("https://web").is_err());
        assert!(split("web:x").is_err());
    }

    #[test]
    fn options() {
        let words = |s: &str| s.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let o = parse(&words("-q -T 3 -O- http://a")).unwrap();
        assert!(o.quiet && o.file.as_deref() == Some("-") && o.timeout == Duration::from_secs(3));
        assert_eq!(parse(&words("-qO- a")).unwrap().file.as_deref(), Some("-"));
        assert!(parse(&words("-x a")).is_err());
    }
}
