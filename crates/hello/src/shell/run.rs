//! Runs the tree: builtins and applets here, programs as children.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command as Process, Stdio};

use super::lexer::paren_end;
use super::parser::{Body, Command, Item, Join, List, Parse, parse};
use crate::{applet, files};

/// What the shell remembers.
#[derive(Default)]
pub struct Shell {
    pub status: i32,
    pub arguments: Vec<String>,
    pub exit_on_error: bool,
    /// `exit` was called, with this code.
    pub exiting: Option<i32>,
    leaving: Option<Leave>,
    children: Vec<Child>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    Break,
    Continue,
}

impl Shell {
    pub fn script(&mut self, text: &str) -> i32 {
        match parse(text) {
            Parse::Done(list) => self.list(&list),
            Parse::Incomplete => self.complain("unexpected end of the script"),
            Parse::Error(why) => self.complain(&why),
        }
        self.exiting.unwrap_or(self.status)
    }

    fn complain(&mut self, why: &str) {
        eprintln!("sh: {why}");
        self.status = 2;
    }

    pub fn list(&mut self, list: &List) {
        for item in list {
            if self.exiting.is_some() || self.leaving.is_some() {
                return;
            }
            let skip = match item.join {
                Join::Then => false,
                Join::And => self.status != 0,
                Join::Or => self.status == 0,
            };
            if !skip {
                self.item(item);
            }
        }
    }

    fn item(&mut self, item: &Item) {
        if item.background {
            let source: Vec<&str> = item.commands.iter().map(|c| c.source.as_str()).collect();
            match subshell(&source.join(" | ")).stdin(Stdio::null()).spawn() {
                Ok(child) => self.children.push(child),
                Err(error) => self.complain(&error.to_string()),
            }
            return;
        }
        match item.commands.as_slice() {
            [one] => self.command(one),
            many => self.pipeline(many),
        }
        if item.negate {
            self.status = i32::from(self.status == 0);
        } else if self.exit_on_error && self.status != 0 && item.join == Join::Then {
            self.exiting = Some(self.status);
        }
    }

    fn pipeline(&mut self, commands: &[Command]) {
        let mut children = Vec::new();
        let mut input = Stdio::inherit();
        for (i, command) in commands.iter().enumerate() {
            let last = i + 1 == commands.len();
            let output = if last { Stdio::inherit() } else { Stdio::piped() };
            match subshell(&command.source).stdin(input).stdout(output).spawn() {
                Ok(mut child) => {
                    input = child.stdout.take().map_or_else(Stdio::null, Stdio::from);
                    children.push(child);
                }
                Err(error) => return self.complain(&error.to_string()),
            }
        }
        for mut child in children {
            self.status = wait(&mut child);
        }
    }

    fn command(&mut self, command: &Command) {
        match &command.body {
            Body::Simple(words) => self.simple(words, &command.redirects),
            // Redirecting a whole block: a child shell has its own descriptors.
            _ if !command.redirects.is_empty() => match self.redirected(subshell(&command.source), &[]) {
                Ok(code) => self.status = code,
                Err(why) => self.complain(&why),
            },
            Body::Group(list) => self.list(list),
            Body::If(arms, otherwise) => {
                for (test, body) in arms {
                    self.guarded(test);
                    if self.status == 0 {
                        return self.list(body);
                    }
                }
                self.status = 0;
                self.list(otherwise);
            }
            Body::While { until, test, body } => loop {
                self.guarded(test);
                if (self.status == 0) == *until || self.exiting.is_some() {
                    self.status = 0;
                    return;
                }
                self.list(body);
                if self.leaving.take() == Some(Leave::Break) || self.exiting.is_some() {
                    return;
                }
            },
            Body::For { name, words, body } => {
                for value in self.expand_all(words) {
                    set_variable(name, &value);
                    self.list(body);
                    if self.leaving.take() == Some(Leave::Break) || self.exiting.is_some() {
                        return;
                    }
                }
            }
        }
    }

    /// Runs a test: `set -e` does not apply there.
    fn guarded(&mut self, test: &List) {
        let before = std::mem::take(&mut self.exit_on_error);
        self.list(test);
        self.exit_on_error = before;
    }

    fn simple(&mut self, words: &[String], redirects: &[(String, String)]) {
        let assignments = words.iter().take_while(|w| assignment(w).is_some()).count();
        let settings: Vec<(String, String)> =
            words[..assignments].iter().filter_map(|w| assignment(w)).map(|(k, v)| (k.to_owned(), self.expand(v).join(" "))).collect();
        let arguments = self.expand_all(&words[assignments..]);
        let Some((name, rest)) = arguments.split_first() else {
            for (key, value) in &settings {
                set_variable(key, value);
            }
            self.status = 0;
            return;
        };
        if redirects.is_empty() && settings.is_empty() && self.builtin(name, rest) {
            return;
        }
        if redirects.is_empty() && settings.is_empty() && name == "echo" {
            self.status = files::echo(rest);
            return;
        }
        let mut process = program(name);
        process.args(rest).envs(settings);
        match self.redirected(process, redirects) {
            Ok(code) => self.status = code,
            Err(why) => {
                eprintln!("sh: {name}: {why}");
                self.status = 127;
            }
        }
    }

    fn redirected(&mut self, mut process: Process, redirects: &[(String, String)]) -> Result<i32, String> {
        for (operator, target) in redirects {
            let path = self.expand(target).join(" ");
            let open = |append| {
                OpenOptions::new().create(true).write(true).append(append).truncate(!append).open(&path).map_err(|e| format!("{path}: {e}"))
            };
            match operator.as_str() {
                "<" => process.stdin(File::open(&path).map_err(|e| format!("{path}: {e}"))?),
                ">" | "1>" => process.stdout(open(false)?),
                ">>" => process.stdout(open(true)?),
                "2>" => process.stderr(open(false)?),
                "2>>" => process.stderr(open(true)?),
                "2>&1" => process.stderr(io::stdout()),
                _ => process.stdout(io::stderr()),
            };
        }
        let mut child =
            process.spawn().map_err(|e| if e.kind() == io::ErrorKind::NotFound { "not found".to_owned() } else { e.to_string() })?;
        Ok(wait(&mut child))
    }

    /// Runs a builtin; says whether there is one of that name.
    fn builtin(&mut self, name: &str, arguments: &[String]) -> bool {
        self.status = match name {
            ":" | "true" => 0,
            "cd" => match std::env::set_current_dir(arguments.first().map_or("/", String::as_str)) {
                Ok(()) => 0,
                Err(error) => files::fail("cd", arguments.first().map_or("/", String::as_str), &error),
            },
            "pwd" => {
                println!("{}", std::env::current_dir().map_or_else(|_| "?".into(), |d| d.display().to_string()));
                0
            }
            "exit" => {
                let code = arguments.first().and_then(|a| a.parse().ok()).unwrap_or(self.status);
                self.exiting = Some(code);
                code
            }
            "break" | "continue" => {
                self.leaving = Some(if name == "break" { Leave::Break } else { Leave::Continue });
                0
            }
            "export" => {
                for (key, value) in arguments.iter().filter_map(|a| a.split_once('=')) {
                    set_variable(key, value);
                }
                0
            }
            "unset" => {
                arguments.iter().for_each(|a| remove_variable(a));
                0
            }
            "set" => {
                self.exit_on_error |= arguments.iter().any(|a| a.starts_with('-') && a.contains('e'));
                0
            }
            // Signals end this program as they should: there is nothing to arrange.
            "trap" => 0,
            "wait" => {
                self.children.drain(..).for_each(|mut c| {
                    wait(&mut c);
                });
                0
            }
            "read" => read_variable(arguments),
            "test" | "[" => i32::from(!test(arguments)),
            "exec" if !arguments.is_empty() => {
                let error = program(&arguments[0]).args(&arguments[1..]).exec();
                files::fail("exec", &arguments[0], &error)
            }
            _ => return false,
        };
        true
    }

    fn expand_all(&mut self, words: &[String]) -> Vec<String> {
        words.iter().flat_map(|w| self.expand(w)).collect()
    }

    /// Expands variables and substitutions, takes quotes off, splits what was not quoted.
    fn expand(&mut self, word: &str) -> Vec<String> {
        let bytes = word.as_bytes();
        let (mut out, mut current, mut started) = (Vec::new(), Vec::new(), false);
        let (mut i, mut double) = (0, false);
        while i < bytes.len() {
            match bytes[i] {
                b'\'' if !double => {
                    let end = word[i + 1..].find('\'').map_or(bytes.len(), |n| i + 1 + n);
                    current.extend(&bytes[i + 1..end]);
                    started = true;
                    i = end + 1;
                }
                b'"' => {
                    double = !double;
                    started = true;
                    i += 1;
                }
                b'\\' if i + 1 < bytes.len() && (!double || matches!(bytes[i + 1], b'"' | b'\\' | b'$' | b'`')) => {
                    current.push(bytes[i + 1]);
                    started = true;
                    i += 2;
                }
                b'$' if i + 1 < bytes.len() => {
                    let (value, next) = self.dollar(word, i);
                    i = next;
                    if double {
                        current.extend(value.as_bytes());
                        continue;
                    }
                    let mut pieces = value.split_whitespace().peekable();
                    if value.starts_with(char::is_whitespace) && started {
                        out.push(std::mem::take(&mut current));
                        started = false;
                    }
                    while let Some(piece) = pieces.next() {
                        current.extend(piece.as_bytes());
                        started = true;
                        if pieces.peek().is_some() || value.ends_with(char::is_whitespace) {
                            out.push(std::mem::take(&mut current));
                            started = false;
                        }
                    }
                }
                byte => {
                    current.push(byte);
                    started = true;
                    i += 1;
                }
            }
        }
        if started {
            out.push(current);
        }
        out.into_iter().map(|w| String::from_utf8_lossy(&w).into_owned()).collect()
    }

    /// The value of the `$...` at `i`, and where it ends.
    fn dollar(&mut self, word: &str, i: usize) -> (String, usize) {
        let bytes = word.as_bytes();
        let variable = |name: &str| std::env::var(name).unwrap_or_default();
        match bytes[i + 1] {
            b'(' => {
                let end = paren_end(bytes, i + 2).unwrap_or(bytes.len() + 1).min(bytes.len());
                (self.capture(&word[i + 2..end.saturating_sub(1).max(i + 2)]), end)
            }
            b'{' => {
                let end = word[i..].find('}').map_or(bytes.len(), |n| i + n);
                let inside = &word[(i + 2).min(end)..end];
                let value = match inside.split_once(":-") {
                    Some((name, default)) => {
                        Some(variable(name)).filter(|v| !v.is_empty()).unwrap_or_else(|| self.expand(default).join(" "))
                    }
                    None => variable(inside),
                };
                (value, end + 1)
            }
            b'?' => (self.status.to_string(), i + 2),
            b'$' => (std::process::id().to_string(), i + 2),
            b'@' | b'*' => (self.arguments.iter().skip(1).cloned().collect::<Vec<_>>().join(" "), i + 2),
            b'#' => (self.arguments.len().saturating_sub(1).to_string(), i + 2),
            digit if digit.is_ascii_digit() => (self.arguments.get(usize::from(digit - b'0')).cloned().unwrap_or_default(), i + 2),
            first if first == b'_' || first.is_ascii_alphabetic() => {
                let length = bytes[i + 1..].iter().take_while(|b| **b == b'_' || b.is_ascii_alphanumeric()).count();
                (variable(&word[i + 1..i + 1 + length]), i + 1 + length)
            }
            _ => ("$".to_owned(), i + 1),
        }
    }

    fn capture(&mut self, source: &str) -> String {
        let mut text = String::new();
        match subshell(source).stdout(Stdio::piped()).spawn() {
            Ok(mut child) => {
                if let Some(mut out) = child.stdout.take()
                    && let Err(error) = out.read_to_string(&mut text)
                {
                    self.complain(&error.to_string());
                }
                self.status = wait(&mut child);
            }
            Err(error) => self.complain(&error.to_string()),
        }
        text.trim_end_matches('\n').to_owned()
    }
}

/// `NAME=value`, split.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let valid = !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric());
    valid.then_some((name, value))
}

fn wait(child: &mut Child) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    child.wait().map_or(1, |s| s.code().or_else(|| s.signal().map(|n| 128 + n)).unwrap_or(1))
}

/// This program again, as the applet of that name, else the program found on the path.
fn program(name: &str) -> Process {
    if !name.contains('/') && applet(name).is_some() {
        let mut process = Process::new("/proc/self/exe");
        process.arg0(name);
        return process;
    }
    Process::new(name)
}

fn subshell(source: &str) -> Process {
    let mut process = program("sh");
    process.arg("-c").arg(source);
    process
}

fn read_variable(arguments: &[String]) -> i32 {
    match super::next_line() {
        Err(_) => 1,
        Ok(line) if line.is_empty() => 1,
        Ok(line) => {
            if let Some(name) = arguments.iter().rfind(|a| !a.starts_with('-')) {
                set_variable(name, line.trim_end_matches('\n'));
            }
            0
        }
    }
}

fn test(arguments: &[String]) -> bool {
    let words: Vec<&str> = arguments.iter().map(String::as_str).filter(|w| *w != "]").collect();
    let number = |s: &str| s.parse::<i64>().unwrap_or(0);
    match words.as_slice() {
        ["!", rest @ ..] => !test(&rest.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()),
        ["-z", s] => s.is_empty(),
        ["-n", s] => !s.is_empty(),
        ["-e", path] => std::path::Path::new(path).exists(),
        ["-f", path] => std::path::Path::new(path).is_file(),
        ["-d", path] => std::path::Path::new(path).is_dir(),
        [a, "=" | "==", b] => a == b,
        [a, "!=", b] => a != b,
        [a, "-eq", b] => number(a) == number(b),
        [a, "-ne", b] => number(a) != number(b),
        [a, "-lt", b] => number(a) < number(b),
        [a, "-le", b] => number(a) <= number(b),
        [a, "-gt", b] => number(a) > number(b),
        [a, "-ge", b] => number(a) >= number(b),
        [one] => !one.is_empty(),
        _ => false,
    }
}

#[expect(unsafe_code, reason = "the shell is single-threaded, so the environment may be changed")]
fn set_variable(name: &str, value: &str) {
    // SAFETY: only `hello` starts threads, and that is another applet in a process of its own.
    unsafe { std::env::set_var(name, value) }
}

#[expect(unsafe_code, reason = "the shell is single-threaded, so the environment may be changed")]
fn remove_variable(name: &str) {
    // SAFETY: as above.
    unsafe { std::env::remove_var(name) }
}
