//! The program of the image `skiff/hello`: a web server that answers with its pod's name, and the applets that trying a
//! cluster needs (sh, wget, nslookup, sleep and a few more). One static file, std alone, chosen by its name like busybox.
//!
//! `skiff`'s build script compiles it a second time, statically, and packs it into the binary.

mod dns;
mod files;
mod server;
mod shell;
mod signals;
mod tar;
mod wget;

use std::process::exit;

/// Applet name, what it does, its function from arguments (without the name) to exit code.
type Applet = (&'static str, &'static str, fn(&[String]) -> i32);

/// Every applet, in order of name. `shell` runs these in place of programs.
pub const APPLETS: [Applet; 18] = [
    ("cat", "print files", files::cat),
    ("date", "print seconds since 1970", files::date),
    ("echo", "print words", files::echo),
    ("env", "print the environment", files::env),
    ("false", "fail", |_| 1),
    ("hello", "serve HTTP: hello [PORT]", server::hello),
    ("hostname", "print the host's name", files::hostname),
    ("id", "print user and group", files::id),
    ("ls", "list folders", files::ls),
    ("mkdir", "make folders", files::mkdir),
    ("nslookup", "look a name up: nslookup NAME [SERVER]", dns::nslookup),
    ("rm", "remove files", files::rm),
    ("sh", "a small shell: sh [-c SCRIPT]", shell::main),
    ("sleep", "wait: sleep SECONDS|infinity", files::sleep),
    ("tar", "pack and unpack: tar cf FILE PATH..., tar xf FILE [-C FOLDER]", tar::main),
    ("touch", "make files", files::touch),
    ("true", "succeed", |_| 0),
    ("wget", "fetch a page: wget [-q] [-T SECONDS] [-O FILE] URL", wget::main),
];

/// The applet of a name, as `sh` or `/bin/sh`.
pub fn applet(name: &str) -> Option<&'static Applet> {
    let base = name.rsplit('/').next().unwrap_or(name);
    APPLETS.iter().find(|a| a.0 == base)
}

fn main() {
    signals::install();
    let mut arguments: Vec<String> = std::env::args().collect();
    let name = if arguments.is_empty() { String::new() } else { arguments.remove(0) };
    // By its own name, or an unknown one, the first argument chooses.
    let chosen = applet(&name).filter(|a| a.0 != "hello");
    if let Some(found) = chosen {
        exit((found.2)(&arguments));
    }
    match arguments.first().and_then(|a| applet(a)) {
        Some(found) => exit((found.2)(&arguments[1..])),
        None if applet(&name).is_some() => exit(server::hello(&arguments)),
        None if arguments.is_empty() => exit(server::hello(&[])),
        None => {
            eprintln!("{}: no such applet; there are:", arguments[0]);
            for (name, what, _) in APPLETS {
                eprintln!("  {name:<10} {what}");
            }
            exit(127);
        }
    }
}
