//! The program inside the tests' containers: std only, linked statically by the tests. Each applet is a small behaviour.

use std::io::{BufRead, Read, Write};

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let word = |index: usize| args.get(index).map(String::as_str).unwrap_or_default();
    match word(0) {
        "sleep" => loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        },
        "exit" => std::process::exit(word(1).parse().unwrap_or(0)),
        "echo" => println!("{}", args[1..].join(" ")),
        "print" => print!("{}", args[1..].join(" ")),
        "both" => {
            println!("out");
            eprintln!("err");
        }
        "tick" => {
            for n in 0.. {
                println!("tick {n}");
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        }
        "cat" => match std::fs::read_to_string(word(1)) {
            Ok(text) => print!("{text}"),
            Err(error) => {
                println!("{error}");
                std::process::exit(1);
            }
        },
        "write" => match std::fs::write(word(1), word(2)) {
            Ok(()) => println!("written"),
            Err(error) => {
                println!("{error}");
                std::process::exit(1);
            }
        },
        "ls" => {
            let mut names: Vec<_> = std::fs::read_dir(word(1)).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
            names.sort();
            println!("{names:?}");
        }
        "env" => println!("{}", std::env::var(word(1)).unwrap_or_default()),
        "eat" => {
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1u8; 1 << 20]);
            }
        }
        "lines" => {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                println!("got {line}");
                let _flushed = std::io::stdout().flush();
                if line == "quit" {
                    std::process::exit(7);
                }
            }
            println!("end");
        }
        "serve" => {
            let listener = std::net::TcpListener::bind("127.0.0.1:8080").expect("bind");
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 64];
                let count = stream.read(&mut buffer).unwrap_or(0);
                let _sent = stream.write_all(&[b"echo ", &buffer[..count]].concat());
            }
        }
        "mkdir" => println!("{:?}", std::fs::create_dir(word(1)).map_err(|e| e.kind())),
        _ => std::process::exit(64),
    }
}
