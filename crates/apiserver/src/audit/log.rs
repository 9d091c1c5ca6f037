//! The audit log: a line of JSON per event, in a file that is rotated by size and kept for so long and so often.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use machinery::object::str_at;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::batch::{Batches, Mode};
use crate::metrics::table;
use crate::state::Api;

/// How events are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Legacy,
}

#[derive(Clone, Debug)]
pub struct LogOptions {
    /// `-`: standard output.
    pub path: PathBuf,
    /// Days; 0: for ever.
    pub max_age: u64,
    /// Files; 0: all.
    pub max_backup: usize,
    /// Megabytes a file has before it is rotated; 0: 100.
    pub max_size: u64,
    pub format: Format,
    pub compress: bool,
    pub mode: Mode,
}

/// Writes what comes until cancelled, and then what is left.
pub async fn run(api: Arc<Api>, mut events: Batches, cancel: CancellationToken) {
    let write = |batch: &mut Vec<Value>| {
        for event in batch.drain(..) {
            if let Some(log) = &api.audit.log {
                log.write(&event).unwrap_or_else(|error| failed(&api, &error));
            }
        }
    };
    let mut batch = Vec::new();
    loop {
        tokio::select! { biased;
            () = cancel.cancelled() => break,
            () = events.next(&mut batch) => {}
        }
        if batch.is_empty() {
            return;
        }
        write(&mut batch);
    }
    write(&mut batch);
    write(&mut events.rest());
}

pub fn failed(api: &Api, error: &io::Error) {
    tracing::error!(%error, "the audit log cannot be written");
    api.metrics.count(&table::AUDIT_ERRORS, &["log"]);
}

pub struct Log {
    options: LogOptions,
    open: Mutex<Option<(File, u64)>>,
}

impl Log {
    pub fn mode(&self) -> Mode {
        self.options.mode
    }

    pub fn open(options: LogOptions) -> io::Result<Self> {
        let log = Self { options, open: Mutex::new(None) };
        if !log.is_stdout() {
            let mut open = log.open.lock().unwrap_or_else(PoisonError::into_inner);
            *open = Some(file(&log.options.path)?);
        }
        Ok(log)
    }

    fn is_stdout(&self) -> bool {
        self.options.path == Path::new("-")
    }

    pub fn write(&self, event: &Value) -> io::Result<()> {
        let mut line = match self.options.format {
            Format::Json => event.to_string(),
            Format::Legacy => legacy(event),
        };
        line.push('\n');
        if self.is_stdout() {
            return io::stdout().write_all(line.as_bytes());
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = if self.options.max_size == 0 { 100 } else { self.options.max_size } << 20;
        if open.as_ref().is_some_and(|(_, size)| size + line.len() as u64 > limit && *size > 0) {
            *open = None;
            self.rotate()?;
        }
        let (file, size) = match &mut *open {
            Some(open) => open,
            None => open.insert(file(&self.options.path)?),
        };
        file.write_all(line.as_bytes())?;
        *size += line.len() as u64;
        Ok(())
    }

    fn rotate(&self) -> io::Result<()> {
        let path = &self.options.path;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
        let prefix = format!("{stem}-");
        let mut at = jiff::Timestamp::now();
        let mut to = path.with_file_name(format!("{prefix}{}{extension}", at.strftime("%Y-%m-%dT%H-%M-%S%.3f")));
        // Two within a millisecond.
        while to.exists() {
            at += Duration::from_millis(1);
            to = path.with_file_name(format!("{prefix}{}{extension}", at.strftime("%Y-%m-%dT%H-%M-%S%.3f")));
        }
        std::fs::rename(path, &to)?;
        if self.options.compress {
            compress(&to)?;
        }
        self.forget(&prefix, &extension)
    }

    /// Removes what is too old or too many.
    fn forget(&self, prefix: &str, extension: &str) -> io::Result<()> {
        let Some(dir) = self.options.path.parent() else { return Ok(()) };
        let mut old: Vec<(String, PathBuf, SystemTime)> = Vec::new();
        for entry in std::fs::read_dir(if dir.as_os_str().is_empty() { Path::new(".") } else { dir })? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let plain = name.strip_suffix(".gz").unwrap_or(&name);
            if plain.starts_with(prefix) && plain.ends_with(extension) {
                old.push((name, entry.path(), entry.metadata()?.modified()?));
            }
        }
        // The newest first: the time is in the name.
        old.sort_by(|a, b| b.0.cmp(&a.0));
        let age_max = Duration::from_secs(self.options.max_age * 24 * 3600);
        for (place, (_, path, modified)) in old.into_iter().enumerate() {
            let many = self.options.max_backup > 0 && place >= self.options.max_backup;
            let aged = self.options.max_age > 0 && modified.elapsed().is_ok_and(|age| age > age_max);
            if many || aged {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The file and its size. Only its owner may read it.
fn file(path: &Path) -> io::Result<(File, u64)> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn compress(path: &Path) -> io::Result<()> {
    let mut to = path.as_os_str().to_owned();
    to.push(".gz");
    let mut packed = flate2::write::GzEncoder::new(File::create(&to)?, flate2::Compression::default());
    io::copy(&mut File::open(path)?, &mut packed)?;
    packed.finish()?;
    std::fs::remove_file(path)
}

/// Upstream's `EventString`.
fn legacy(event: &Value) -> String {
    let or = |text: &str, other: &'static str| if text.is_empty() { other.to_owned() } else { text.to_owned() };
    let groups = |path: &str| {
        let list = event.pointer(path).and_then(Value::as_array);
        let quoted: Vec<String> = list.into_iter().flatten().filter_map(Value::as_str).map(|g| format!("{g:?}")).collect();
        if quoted.is_empty() { "<none>".to_owned() } else { quoted.join(",") }
    };
    let ip = event.pointer("/sourceIPs/0").and_then(Value::as_str).unwrap_or("<unknown>");
    let code = event.pointer("/responseStatus/code").map_or("<deferred>".to_owned(), ToString::to_string);
    let impersonated = event.get("impersonatedUser").is_some();
    let (as_user, as_groups) = if impersonated {
        (or(str_at(event, "impersonatedUser.username"), "<self>"), groups("/impersonatedUser/groups"))
    } else {
        ("<self>".to_owned(), "<lookup>".to_owned())
    };
    format!(
        "{} AUDIT: id={:?} stage={:?} ip={ip:?} method={:?} user={:?} groups={:?} as={as_user:?} asgroups={as_groups:?} user-agent={:?} namespace={:?} uri={:?} response=\"{code}\"",
        str_at(event, "requestReceivedTimestamp"),
        str_at(event, "auditID"),
        str_at(event, "stage"),
        str_at(event, "verb"),
        or(str_at(event, "user.username"), "<none>"),
        groups("/user/groups"),
        str_at(event, "userAgent"),
        or(str_at(event, "objectRef.namespace"), "<none>"),
        str_at(event, "requestURI"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_rotated_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.log");
        let options = LogOptions {
            path: path.clone(),
            max_age: 1,
            max_backup: 2,
            max_size: 1,
            format: Format::Json,
            compress: true,
            mode: Mode::Blocking,
        };
        let log = Log::open(options).unwrap();
        let event = json!({"text": "x".repeat(400 * 1024)});
        for _ in 0..12 {
            log.write(&event).unwrap();
        }
        let mut names: Vec<String> =
            std::fs::read_dir(dir.path().join("logs")).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names[0].starts_with("audit-2") && names[0].ends_with(".log.gz") && names[2] == "audit.log", "{names:?}");
        assert!(std::fs::metadata(&path).unwrap().len() <= 1 << 20);
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn legacy_lines_are_upstreams() {
        let event = json!({"requestReceivedTimestamp": "T", "auditID": "i", "stage": "RequestReceived", "verb": "get", "requestURI": "/x",
            "user": {"username": "u", "groups": ["a", "b"]}, "sourceIPs": ["1.2.3.4"]});
        let want = r#"T AUDIT: id="i" stage="RequestReceived" ip="1.2.3.4" method="get" user="u" groups="\"a\",\"b\"" as="<self>" asgroups="<lookup>" user-agent="" namespace="<none>" uri="/x" response="<deferred>""#;
        assert_eq!(legacy(&event), want);
    }
}
