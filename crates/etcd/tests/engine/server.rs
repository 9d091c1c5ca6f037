//! A real etcd server in a directory and on ports of its own, killed when dropped.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

pub struct Server {
    pub url: String,
    pub dir: TempDir,
    peer: String,
    child: Option<Child>,
    tls: bool,
}

/// The program; `SKIFF_TEST_ETCD` names another one than that of the path, to try another version.
fn etcd() -> String {
    std::env::var("SKIFF_TEST_ETCD").unwrap_or_else(|_| "etcd".to_owned())
}

impl Server {
    /// `None`, said in words, where etcd is not installed.
    pub fn start(test: &str) -> Option<Self> {
        Self::with(test, false)
    }

    /// Wants client certificates: `ca.pem`, `client.pem`, `client.key` lie in its directory.
    pub fn start_tls(test: &str) -> Option<Self> {
        Self::with(test, true)
    }

    fn with(test: &str, tls: bool) -> Option<Self> {
        if Command::new(etcd()).arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: {test}: etcd is not installed (apt-get install etcd-server)");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        if tls {
            certificates(dir.path());
        }
        let scheme = if tls { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", trial::free_port().unwrap());
        let peer = format!("http://127.0.0.1:{}", trial::free_port().unwrap());
        let mut server = Self { url, dir, peer, child: None, tls };
        server.run();
        Some(server)
    }

    /// Starts it, again, and waits until it answers.
    pub fn run(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(etcd());
        command
            .args(["--name", "one", "--initial-cluster", &format!("one={}", self.peer), "--initial-advertise-peer-urls", &self.peer])
            .args(["--listen-peer-urls", &self.peer, "--listen-client-urls", &self.url, "--advertise-client-urls", &self.url])
            .arg("--unsafe-no-fsync=true")
            .arg("--data-dir")
            .arg(path("data"));
        if self.tls {
            command.arg("--cert-file").arg(path("server.pem")).arg("--key-file").arg(path("server.key"));
            command.arg("--trusted-ca-file").arg(path("ca.pem")).arg("--client-cert-auth");
        }
        let log = std::fs::File::create(path("log")).unwrap();
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let address = self.url.split("//").nth(1).unwrap().to_owned();
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < until, "etcd does not start: {}", std::fs::read_to_string(path("log")).unwrap());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn etcdctl(&self) -> Option<Command> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url]);
        let found = Command::new("etcdctl").arg("version").stdout(Stdio::null()).status().is_ok();
        if !found {
            eprintln!("skipped in part: etcdctl is not installed (apt-get install etcd-client)");
        }
        found.then_some(command)
    }

    /// Puts all in one revision; `false` where there is no etcdctl.
    pub fn transaction(&self, puts: &[(String, &str)]) -> bool {
        use std::io::Write as _;
        let Some(mut command) = self.etcdctl() else { return false };
        let mut child = command.arg("txn").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let lines: String = puts.iter().map(|(key, value)| format!("put {key} {value}\n")).collect();
        child.stdin.take().unwrap().write_all(format!("\n{lines}\n\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        true
    }

    /// How many leases there are; `None` where there is no etcdctl.
    pub fn leases(&self) -> Option<usize> {
        let output = self.etcdctl()?.args(["lease", "list"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(text.lines().filter(|l| !l.starts_with("found")).count())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn certificates(dir: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "etcd-ca");
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(params, key);
    for (name, usages) in [
        ("server", vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]),
        ("client", vec![ExtendedKeyUsagePurpose::ClientAuth]),
    ] {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = usages;
        let key = KeyPair::generate().unwrap();
        std::fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}
