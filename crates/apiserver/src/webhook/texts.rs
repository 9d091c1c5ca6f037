//! Failed connections in the words of Go's client: `dial tcp ...`, `tls: failed to verify certificate: x509: ...`.

use rustls::{AlertDescription, CertificateError, Error as TlsError};

/// Why a connection could not be made.
pub fn dial(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable, TimedOut};
    match error.kind() {
        ConnectionRefused => "connect: connection refused".to_owned(),
        ConnectionReset => "connect: connection reset by peer".to_owned(),
        HostUnreachable => "connect: no route to host".to_owned(),
        NetworkUnreachable => "connect: network is unreachable".to_owned(),
        TimedOut => "connect: connection timed out".to_owned(),
        _ => error.to_string(),
    }
}

/// Why a handshake failed.
pub fn handshake(error: &std::io::Error) -> String {
    if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
        return tls_error(tls);
    }
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        std::io::ErrorKind::ConnectionReset => "read: connection reset by peer".to_owned(),
        _ => error.to_string(),
    }
}

fn tls_error(error: &TlsError) -> String {
    match error {
        TlsError::InvalidCertificate(why) => format!("tls: failed to verify certificate: x509: {}", certificate(why)),
        TlsError::AlertReceived(alert) => format!("remote error: tls: {}", alert_text(*alert)),
        TlsError::InvalidMessage(_) => "http: server gave HTTP response to HTTPS client".to_owned(),
        TlsError::NoCertificatesPresented => "tls: received empty certificates message".to_owned(),
        other => format!("tls: {other}"),
    }
}

fn certificate(why: &CertificateError) -> String {
    use CertificateError as C;
    let time = |t: &rustls::pki_types::UnixTime| {
        let at = i64::try_from(t.as_secs()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        at.map(|at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default()
    };
    match why {
        C::UnknownIssuer | C::BadSignature => "certificate signed by unknown authority".to_owned(),
        C::Expired | C::NotValidYet => "certificate has expired or is not yet valid".to_owned(),
        C::ExpiredContext { time: now, not_after } => {
            format!("certificate has expired or is not yet valid: current time {} is after {}", time(now), time(not_after))
        }
        C::NotValidYetContext { time: now, not_before } => {
            format!("certificate has expired or is not yet valid: current time {} is before {}", time(now), time(not_before))
        }
        C::NotValidForNameContext { expected, presented } => names(&expected.to_str(), presented),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => "certificate specifies an incompatible key usage".to_owned(),
        C::BadEncoding => "malformed certificate".to_owned(),
        other => other.to_string(),
    }
}

/// `presented` is like `DnsName("a.b")` or `IpAddress(1.2.3.4)`.
fn names(wanted: &str, presented: &[String]) -> String {
    let is_ip = wanted.parse::<std::net::IpAddr>().is_ok();
    let kind = if is_ip { "IpAddress(" } else { "DnsName(" };
    let inner = |p: &String| Some(p.strip_prefix(kind)?.trim_end_matches(')').trim_matches('"').to_owned());
    let fitting: Vec<String> = presented.iter().filter_map(inner).collect();
    match (is_ip, fitting.is_empty()) {
        (true, true) => format!("cannot validate certificate for {wanted} because it doesn't contain any IP SANs"),
        (false, true) if presented.is_empty() => "certificate relies on legacy Common Name field, use SANs instead".to_owned(),
        (false, true) => format!("certificate is not valid for any names, but wanted to match {wanted}"),
        (_, false) => format!("certificate is valid for {}, not {wanted}", fitting.join(", ")),
    }
}

fn alert_text(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::BadCertificate => "bad certificate".to_owned(),
        AlertDescription::CertificateRequired => "certificate required".to_owned(),
        AlertDescription::CertificateExpired => "expired certificate".to_owned(),
        AlertDescription::UnknownCA => "unknown certificate authority".to_owned(),
        AlertDescription::HandshakeFailure => "handshake failure".to_owned(),
        AlertDescription::ProtocolVersion => "protocol version not supported".to_owned(),
        AlertDescription::UnrecognisedName => "unrecognized name".to_owned(),
        AlertDescription::InternalError => "internal error".to_owned(),
        AlertDescription::AccessDenied => "access denied".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_missed_in_gos_words() {
        let dns = ["DnsName(\"a.svc\")".to_owned(), "DnsName(\"b.svc\")".to_owned()];
        assert_eq!(names("c.svc", &dns), "certificate is valid for a.svc, b.svc, not c.svc");
        assert_eq!(names("10.0.0.1", &dns), "cannot validate certificate for 10.0.0.1 because it doesn't contain any IP SANs");
        assert_eq!(names("c.svc", &[]), "certificate relies on legacy Common Name field, use SANs instead");
        let ips = ["IpAddress(127.0.0.1)".to_owned()];
        assert_eq!(names("10.0.0.1", &ips), "certificate is valid for 127.0.0.1, not 10.0.0.1");
        assert_eq!(names("c.svc", &ips), "certificate is not valid for any names, but wanted to match c.svc");
    }
}
