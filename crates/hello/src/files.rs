//! The applets around files and text.

use std::fs;
use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Prints an error as `applet: subject: why` and returns 1.
pub fn fail(applet: &str, subject: &str, why: &dyn std::fmt::Display) -> i32 {
    eprintln!("{applet}: {subject}: {why}");
    1
}

pub fn cat(arguments: &[String]) -> i32 {
    let mut out = io::stdout().lock();
    if arguments.is_empty() {
        return match io::copy(&mut io::stdin().lock(), &mut out) {
            Ok(_) => 0,
            Err(error) => fail("cat", "standard input", &error),
        };
    }
    let mut code = 0;
    for path in arguments {
        if let Err(error) = fs::File::open(path).and_then(|mut f| io::copy(&mut f, &mut out)) {
            code = fail("cat", path, &error);
        }
    }
    code
}

pub fn echo(arguments: &[String]) -> i32 {
    let (newline, words) = match arguments.split_first() {
        Some((first, rest)) if first == "-n" => ("", rest),
        _ => ("\n", arguments),
    };
    let text = format!("{}{newline}", words.join(" "));
    i32::from(io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()).is_err())
}

pub fn env(_: &[String]) -> i32 {
    for (key, value) in std::env::vars_os() {
        println!("{}={}", key.to_string_lossy(), value.to_string_lossy());
    }
    0
}

/// The host's name as the kernel has it; in a pod, the pod's name.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "localhost".to_owned(), |s| s.trim().to_owned())
}

pub fn hostname(_: &[String]) -> i32 {
    println!("{}", host_name());
    0
}

pub fn date(_: &[String]) -> i32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    println!("{seconds}");
    0
}

pub fn id(_: &[String]) -> i32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap_or("");
        line.split_whitespace().nth(2).unwrap_or("?").to_owned()
    };
    let groups = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap_or("").split_whitespace().collect::<Vec<_>>().join(",");
    println!("uid={} gid={} groups={groups}", field("Uid:"), field("Gid:"));
    0
}

pub fn ls(arguments: &[String]) -> i32 {
    let (flags, mut paths): (Vec<&String>, Vec<&str>) = {
        let (f, p): (Vec<&String>, Vec<&String>) = arguments.iter().partition(|a| a.starts_with('-'));
        (f, p.into_iter().map(String::as_str).collect())
    };
    let all = flags.iter().any(|f| f.contains('a'));
    if paths.is_empty() {
        paths.push(".");
    }
    let mut code = 0;
    for path in paths {
        match fs::metadata(path) {
            Ok(meta) if meta.is_dir() => match fs::read_dir(path) {
                Ok(entries) => {
                    let mut names: Vec<String> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
                    names.sort();
                    for name in names.iter().filter(|n| all || !n.starts_with('.')) {
                        println!("{name}");
                    }
                }
                Err(error) => code = fail("ls", path, &error),
            },
            Ok(_) => println!("{path}"),
            Err(error) => code = fail("ls", path, &error),
        }
    }
    code
}

fn each(applet: &str, arguments: &[String], act: impl Fn(&str) -> io::Result<()>) -> i32 {
    let mut code = 0;
    for path in arguments.iter().filter(|a| !a.starts_with('-')) {
        if let Err(error) = act(path) {
            code = fail(applet, path, &error);
        }
    }
    code
}

pub fn mkdir(arguments: &[String]) -> i32 {
    let parents = arguments.iter().any(|a| a == "-p");
    each("mkdir", arguments, |path| if parents { fs::create_dir_all(path) } else { fs::create_dir(path) })
}

pub fn rm(arguments: &[String]) -> i32 {
    let recursive = arguments.iter().any(|a| a.starts_with('-') && a.contains('r'));
    let force = arguments.iter().any(|a| a.starts_with('-') && a.contains('f'));
    each("rm", arguments, |path| {
        let removed = if recursive && fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        };
        match removed {
            Err(error) if force && error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    })
}

pub fn touch(arguments: &[String]) -> i32 {
    each("touch", arguments, |path| {
        let file = fs::OpenOptions::new().create(true).append(true).open(path)?;
        file.set_modified(SystemTime::now())
    })
}

pub fn sleep(arguments: &[String]) -> i32 {
    match arguments.first().map(String::as_str) {
        Some("infinity") => loop {
            std::thread::sleep(Duration::from_secs(86_400));
        },
        Some(text) => match text.trim_end_matches('s').parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok()) {
            Some(wait) => {
                std::thread::sleep(wait);
                0
            }
            None => fail("sleep", text, &"not a number of seconds"),
        },
        None => fail("sleep", "", &"how long?"),
    }
}
