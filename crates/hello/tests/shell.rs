//! The shell, from outside: script in, output and exit code out.

use std::process::Command;

fn sh(script: &str) -> (String, i32) {
    let out = Command::new(env!("CARGO_BIN_EXE_hello")).args(["sh", "-c", script]).output().expect("the shell runs");
    (String::from_utf8_lossy(&out.stdout).into_owned(), out.status.code().unwrap_or(-1))
}

#[test]
fn scripts() {
    for (script, output, code) in [
        ("echo hi", "hi\n", 0),
        ("echo 'a  b' \"c $HOME_X d\"", "a  b c  d\n", 0),
        ("X=1; echo $X ${X} ${Y:-z}", "1 1 z\n", 0),
        ("false || echo no && echo yes", "no\nyes\n", 0),
        ("false; echo $?", "1\n", 0),
        ("if [ 1 -lt 2 ]; then echo less; else echo more; fi", "less\n", 0),
        ("for i in a b c; do echo -n $i; done; echo", "abc\n", 0),
        ("i=x; while [ $i != xxxx ]; do i=x$i; done; echo $i", "xxxx\n", 0),
        ("echo one two | cat", "one two\n", 0),
        ("echo $(echo in $(echo deep))", "in deep\n", 0),
        ("exit 3", "", 3),
        ("! false", "", 0),
        ("no-such-program-here", "", 127),
        ("for i in 1 2 3; do [ $i = 2 ] && break; echo $i; done", "1\n", 0),
        ("(echo a; echo b) | cat", "a\nb\n", 0),
        ("set -e; false; echo not here", "", 1),
        ("echo a # comment\necho b", "a\nb\n", 0),
    ] {
        assert_eq!(sh(script), (output.to_owned(), code), "{script}");
    }
}

#[test]
fn redirections() {
    let file = std::env::temp_dir().join(format!("hello-shell-{}", std::process::id()));
    let path = file.display();
    let (output, code) = sh(&format!("echo a > {path}; echo b >> {path}; cat < {path}; echo err 1>&2; rm {path}"));
    assert_eq!((output.as_str(), code), ("a\nb\n", 0));
}

#[test]
fn bad_scripts_say_so() {
    for script in ["if true", "echo 'open", "fi fi fi |", "( echo"] {
        assert_eq!(sh(script).1, 2, "{script}");
    }
}

#[test]
fn a_script_on_standard_input_runs_line_by_line() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let mut child = Command::new(env!("CARGO_BIN_EXE_hello"))
        .arg("sh")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("runs");
    let (mut to, mut from) = (child.stdin.take().expect("a pipe"), BufReader::new(child.stdout.take().expect("a pipe")));
    let mut line = String::new();
    to.write_all(b"echo one\n").expect("sent");
    from.read_line(&mut line).expect("the answer comes before the end of input");
    to.write_all(b"read x\nthe rest\nif true\nthen echo $x; exit 3\nfi\n").expect("sent");
    from.read_line(&mut line).expect("an answer");
    assert_eq!(line, "one\nthe rest\n");
    assert_eq!(child.wait().expect("ends").code(), Some(3));
}
