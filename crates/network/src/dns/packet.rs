//! DNS messages to questions and answers back to messages, with `hickory-proto`.

use std::str::FromStr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record as WireRecord, RecordType as WireType};
use netplan::dns::{Answer, Data, Record, RecordType, TTL_SECONDS, Zone};

/// What a client without EDNS can take over UDP, and the most we send to one with it.
const PLAIN_UDP_BYTES_MAX: usize = 512;
const UDP_BYTES_MAX: u16 = 1232;
const TCP_BYTES_MAX: usize = u16::MAX as usize;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// A question somebody asked.
#[derive(Debug)]
pub(super) struct Question {
    request: Vec<u8>,
    message: Message,
    query: Query,
    name: String,
    transport: Transport,
}

/// An alias on the way to an answer.
#[derive(Debug)]
pub(super) struct Alias {
    record: WireRecord,
    target: String,
    request: Vec<u8>,
}

impl Alias {
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// The question about the target.
    pub(super) fn request(&self) -> &[u8] {
        &self.request
    }
}

impl Question {
    /// The question of a packet, or the reply to one that is no proper question; none to what is no request at all.
    pub(super) fn parse(bytes: &[u8], transport: Transport) -> Result<Self, Option<Vec<u8>>> {
        let refuse = |id, op, code| Message::error_msg(id, op, code).to_vec().ok();
        let Ok(message) = Message::from_vec(bytes) else {
            // Only a request can be answered, even a broken one.
            let header = bytes.get(..12).filter(|h| h[2] & 0x80 == 0);
            return Err(header.and_then(|h| refuse(u16::from_be_bytes([h[0], h[1]]), OpCode::Query, ResponseCode::FormErr)));
        };
        let metadata = message.metadata;
        if metadata.message_type != MessageType::Query {
            return Err(None);
        }
        if metadata.op_code != OpCode::Query {
            return Err(refuse(metadata.id, metadata.op_code, ResponseCode::NotImp));
        }
        let [query] = message.queries.as_slice() else {
            return Err(refuse(metadata.id, metadata.op_code, ResponseCode::FormErr));
        };
        let name = query.name().to_ascii();
        let name = name.strip_suffix('.').unwrap_or(&name).to_owned();
        Ok(Question { request: bytes.to_vec(), query: query.clone(), message, name, transport })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn request(&self) -> &[u8] {
        &self.request
    }

    pub(super) fn transport(&self) -> Transport {
        self.transport
    }

    pub(super) fn kind(&self) -> RecordType {
        if self.query.query_class() != DNSClass::IN {
            return RecordType::Other;
        }
        match self.query.query_type() {
            WireType::A => RecordType::A,
            WireType::AAAA => RecordType::Aaaa,
            WireType::SRV => RecordType::Srv,
            WireType::PTR => RecordType::Ptr,
            WireType::CNAME => RecordType::Cname,
            WireType::NS => RecordType::Ns,
            WireType::SOA => RecordType::Soa,
            WireType::TXT => RecordType::Txt,
            _ => RecordType::Other,
        }
    }

    fn response(&self, code: ResponseCode) -> Message {
        let mut response = Message::response(self.message.metadata.id, OpCode::Query);
        response.metadata.recursion_desired = self.message.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.response_code = code;
        response.add_query(self.query.clone());
        if self.message.edns.is_some() {
            let mut edns = hickory_proto::op::Edns::new();
            edns.set_max_payload(UDP_BYTES_MAX).set_version(0);
            response.set_edns(edns);
        }
        response
    }

    fn encode(&self, response: &Message) -> Vec<u8> {
        let limit = match (self.transport, &self.message.edns) {
            (Transport::Tcp, _) => TCP_BYTES_MAX,
            (Transport::Udp, None) => PLAIN_UDP_BYTES_MAX,
            (Transport::Udp, Some(edns)) => usize::from(edns.max_payload().clamp(PLAIN_UDP_BYTES_MAX as u16, UDP_BYTES_MAX)),
        };
        match response.to_vec() {
            Ok(bytes) if bytes.len() <= limit => bytes,
            Ok(_) => response.truncate().to_vec().unwrap_or_default(),
            Err(e) => {
                tracing::warn!(name = self.name, error = %e, "cannot encode an answer");
                self.response(ResponseCode::ServFail).to_vec().unwrap_or_default()
            }
        }
    }

    /// SERVFAIL.
    pub(super) fn failure(&self) -> Vec<u8> {
        self.encode(&self.response(ResponseCode::ServFail))
    }

    pub(super) fn answer(&self, answer: &Answer, zone: &Zone) -> Vec<u8> {
        let mut response = self.response(ResponseCode::NoError);
        fill(&mut response, answer, zone);
        self.encode(&response)
    }

    /// The alias record and the question to ask about its target.
    pub(super) fn alias(&self, record: &Record, target: &str, zone: &Zone) -> Option<Alias> {
        let record = wire(record, zone)?;
        let name = fqdn(target)?;
        let mut ask = Message::query();
        ask.metadata.id = self.message.metadata.id;
        ask.metadata.recursion_desired = true;
        ask.add_query(Query::query(name, self.query.query_type()));
        Some(Alias { record, target: target.to_ascii_lowercase(), request: ask.to_vec().ok()? })
    }

    /// The alias, then what we know ourselves about its target.
    pub(super) fn aliased_answer(&self, alias: &Alias, answer: &Answer, zone: &Zone) -> Vec<u8> {
        let mut response = self.response(ResponseCode::NoError);
        response.add_answer(alias.record.clone());
        fill(&mut response, answer, zone);
        self.encode(&response)
    }

    /// The alias, then what a resolver says about its target.
    pub(super) fn aliased_reply(&self, alias: &Alias, reply: &[u8]) -> Vec<u8> {
        let Ok(reply) = Message::from_vec(reply) else { return self.failure() };
        let mut response = self.response(reply.metadata.response_code);
        response.add_answer(alias.record.clone());
        response.add_answers(reply.answers.iter().cloned());
        self.encode(&response)
    }
}

fn fill(response: &mut Message, answer: &Answer, zone: &Zone) {
    response.metadata.authoritative = true;
    match answer {
        Answer::Records { answers, additionals } => {
            response.add_answers(answers.iter().filter_map(|r| wire(r, zone)));
            response.add_additionals(additionals.iter().filter_map(|r| wire(r, zone)));
        }
        Answer::NoData | Answer::NoName => {
            if *answer == Answer::NoName {
                response.metadata.response_code = ResponseCode::NXDomain;
            }
            response.add_authorities(wire(&Record { name: zone.domain.clone(), data: Data::Soa }, zone));
        }
        // An alias to an alias: clients follow it themselves.
        Answer::Alias { record, .. } => {
            response.add_answers(wire(record, zone));
        }
        Answer::Forward => response.metadata.response_code = ResponseCode::ServFail,
    }
}

fn fqdn(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok().or_else(|| Name::from_str(name).ok())?;
    name.set_fqdn(true);
    Some(name)
}

fn wire(record: &Record, zone: &Zone) -> Option<WireRecord> {
    let data = match &record.data {
        Data::A(ip) => RData::A(A(*ip)),
        Data::Aaaa(ip) => RData::AAAA(AAAA(*ip)),
        Data::Srv { priority, weight, port, target } => RData::SRV(SRV::new(*priority, *weight, *port, fqdn(target)?)),
        Data::Ptr(target) => RData::PTR(PTR(fqdn(target)?)),
        Data::Cname(target) => RData::CNAME(CNAME(fqdn(target)?)),
        Data::Ns(target) => RData::NS(NS(fqdn(target)?)),
        Data::Txt(text) => RData::TXT(TXT::new(vec![text.clone()])),
        Data::Soa => {
            let server = fqdn(&format!("ns.dns.{}", zone.domain))?;
            let mailbox = fqdn(&format!("hostmaster.{}", zone.domain))?;
            RData::SOA(SOA::new(server, mailbox, 1, 7200, 1800, 86_400, TTL_SECONDS))
        }
    };
    Some(WireRecord::from_rdata(fqdn(&record.name)?, TTL_SECONDS, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        Zone { domain: "cluster.local".into(), servers: Vec::new() }
    }

    fn question(edns: Option<u16>, transport: Transport) -> Question {
        let mut message = Message::query();
        message.add_query(Query::query(Name::from_ascii("Web.default.svc.cluster.local.").unwrap(), WireType::A));
        if let Some(size) = edns {
            let mut edns = hickory_proto::op::Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        Question::parse(&message.to_vec().unwrap(), transport).unwrap()
    }

    #[test]
    fn an_answer_too_long_for_its_client_is_cut_and_says_so() {
        let record = |n: u8| Record { name: "web.default.svc.cluster.local".into(), data: Data::A([10, 0, 0, n].into()) };
        let answer = Answer::Records { answers: (0..60).map(record).collect(), additionals: Vec::new() };
        for (edns, transport, truncated) in [
            (None, Transport::Udp, true),
            (Some(600), Transport::Udp, true),
            (Some(4096), Transport::Udp, false),
            (None, Transport::Tcp, false),
        ] {
            let question = question(edns, transport);
            let bytes = question.answer(&answer, &zone());
            let reply = Message::from_vec(&bytes).unwrap();
            assert_eq!(reply.metadata.truncation, truncated, "{edns:?} {transport:?}");
            assert_eq!(reply.answers.len(), if truncated { 0 } else { 60 });
            assert_eq!(reply.edns.is_some(), edns.is_some());
            assert!(transport == Transport::Tcp || bytes.len() <= usize::from(edns.unwrap_or(512).min(UDP_BYTES_MAX)));
        }
    }

    #[test]
    fn the_question_is_echoed_as_asked() {
        let reply = Message::from_vec(&question(None, Transport::Udp).answer(&Answer::NoName, &zone())).unwrap();
        assert_eq!(reply.queries[0].name().to_ascii(), "Web.default.svc.cluster.local.");
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
        assert!(matches!(&reply.authorities[0].data, RData::SOA(soa) if soa.minimum == TTL_SECONDS));
    }

    #[test]
    fn broken_packets_get_an_error_or_nothing() {
        let whole = question(None, Transport::Udp).request().to_vec();
        for len in 0..whole.len() {
            let reply = Question::parse(&whole[..len], Transport::Udp).unwrap_err();
            assert_eq!(reply.is_some(), len >= 12, "{len} bytes");
        }
        let mut response = whole.clone();
        response[2] |= 0x80;
        assert!(Question::parse(&response, Transport::Udp).unwrap_err().is_none());
        let mut update = whole.clone();
        update[2] |= 5 << 3;
        let reply = Message::from_vec(&Question::parse(&update, Transport::Udp).unwrap_err().unwrap()).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::NotImp);
        // Any byte may be anything.
        for at in 0..whole.len() {
            for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                if let Ok(question) = Question::parse(&bytes, Transport::Udp) {
                    assert!(!question.failure().is_empty());
                }
            }
        }
    }
}
