//! kubectl commands as a script, with what a user reads of each.

use crate::Cluster;

fn words(line: &str) -> Vec<String> {
    // Quotes hold words together, as in a shell.
    let (mut all, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (quoted, any) = (!quoted, true),
            ' ' if !quoted => {
                if any || !word.is_empty() {
                    all.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => word.push(c),
        }
    }
    if any || !word.is_empty() {
        all.push(word);
    }
    all
}

/// All a command says, and whether it succeeds.
///
/// # Panics
/// If kubectl does not run at all.
pub fn run(cluster: &Cluster, line: &str) -> (String, bool) {
    let words = words(line);
    let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
    let out = cluster.kubectl(&arguments).expect("kubectl runs");
    (out.stdout + &out.stderr, out.success)
}

/// Each line is a command, `=>`, and parts of what it says; `!` before the command: it fails.
///
/// # Panics
/// If a command does otherwise.
pub fn script(cluster: &Cluster, lines: &str) {
    script_with(cluster, "", lines);
}

/// As [`script`], with flags before each command.
///
/// # Panics
/// If a command does otherwise.
pub fn script_with(cluster: &Cluster, flags: &str, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (command, expected) = line.split_once("=>").unwrap_or((line, ""));
        let (command, fails) = match command.trim().strip_prefix('!') {
            Some(command) => (command.trim(), true),
            None => (command.trim(), false),
        };
        let (said, success) = run(cluster, &format!("{flags} {command}"));
        assert_eq!(success, !fails, "kubectl {command}: {said}\n{}", cluster.log());
        for part in expected.split('|').map(str::trim).filter(|p| !p.is_empty()) {
            assert!(said.contains(part), "kubectl {command}: {part:?} is not in\n{said}");
        }
    }
}
