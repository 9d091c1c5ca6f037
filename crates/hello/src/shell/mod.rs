//! A small POSIX-like shell: enough to look around in a pod and to run the scripts of examples. Not complete: no
//! functions, no job control, no arithmetic, and every variable is exported.

mod lexer;
mod parser;
mod run;

use std::io::{self, BufRead, IsTerminal, Write};

use crate::files::{fail, stdin_text};
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
    if io::stdin().is_terminal() {
        return interactive(&mut shell);
    }
    match stdin_text() {
        Ok(script) => shell.script(&script),
        Err(error) => fail("sh", "standard input", &error),
    }
}

fn interactive(shell: &mut Shell) -> i32 {
    let mut text = String::new();
    loop {
        let prompt = if text.is_empty() {
            format!("{} # ", std::env::current_dir().map_or_else(|_| "?".into(), |d| d.display().to_string()))
        } else {
            "> ".to_owned()
        };
        print!("{prompt}");
        if io::stdout().flush().is_err() {
            return 1;
        }
        let mut line = String::new();
        match io::stdin().lock().read_line(&mut line) {
            Ok(0) | Err(_) => {
                println!();
                return shell.status;
            }
            Ok(_) => text.push_str(&line),
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
