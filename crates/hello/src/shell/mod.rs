//! A small POSIX-like shell: enough to look around in a pod and to run the scripts of examples. Not complete: no
//! functions, no job control, no arithmetic, and every variable is exported.

mod lexer;
mod parser;
mod run;

use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::os::fd::AsFd as _;

use crate::files::fail;
use parser::Parse;
use run::Shell;

/// `sh [-c SCRIPT [NAME ARGS...]] [FILE [ARGS...]]`
pub fn main(arguments: &[String]) -> i32 {
    let mut shell = Shell::default();
    let mut rest = arguments;
    let mut command = false;
    while let Some((first, others)) = rest.split_first()
        && first.starts_with('-')
        && first.len() > 1
    {
        command |= first.contains('c');
        shell.exit_on_error |= first.contains('e');
        rest = others;
    }
    if command {
        let Some((script, others)) = rest.split_first() else { return fail("sh", "-c", &"needs a script") };
        shell.arguments = others.to_vec();
        return shell.script(script);
    }
    if let Some(file) = rest.first() {
        shell.arguments = rest.to_vec();
        return match std::fs::read_to_string(file) {
            Ok(script) => shell.script(&script),
            Err(error) => fail("sh", file, &error),
        };
    }
    interactive(&mut shell, io::stdin().is_terminal())
}

/// Runs what comes line by line, so that who sends the next line has seen what the last one did.
fn interactive(shell: &mut Shell, prompts: bool) -> i32 {
    let mut text = String::new();
    loop {
        let prompt = if text.is_empty() {
            format!("{} # ", std::env::current_dir().map_or_else(|_| "?".into(), |d| d.display().to_string()))
        } else {
            "> ".to_owned()
        };
        if prompts {
            print!("{prompt}");
            if io::stdout().flush().is_err() {
                return 1;
            }
        }
        match next_line() {
            Ok(line) if line.is_empty() => {
                if prompts {
                    println!();
                } else if !text.is_empty() {
                    return shell.script(&text);
                }
                return shell.status;
            }
            Ok(line) => text.push_str(&line),
            Err(error) => return fail("sh", "standard input", &error),
        }
        match parser::parse(&text) {
            Parse::Incomplete => continue,
            Parse::Error(why) => {
                eprintln!("sh: {why}");
                shell.status = 2;
            }
            Parse::Done(list) => {
                shell.list(&list);
                if let Some(code) = shell.exiting {
                    return code;
                }
            }
        }
        text.clear();
    }
}

/// A line of standard input, and no byte more: the rest belongs to the programs the line runs. Empty at the end.
pub fn next_line() -> io::Result<String> {
    let mut input = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (mut line, mut byte) = (Vec::new(), [0]);
    while input.read(&mut byte)? == 1 {
        line.push(byte[0]);
        if byte[0] == b'\n' {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
