//! DNS packets: questions of pods and replies of resolvers. The parser comes by its path: its crate would bring all of an API client.
#![no_main]
#[path = "../../../crates/network/src/dns/packet.rs"]
#[expect(dead_code, reason = "only a part is attacked")]
mod packet;

use netplan::dns::{Answer, Data, Record, Zone};
use packet::{Question, Transport};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let zone = Zone { domain: "cluster.local".into(), servers: Vec::new() };
    for (transport, limit) in [(Transport::Udp, 1232), (Transport::Tcp, 65_535)] {
        let question = match Question::parse(bytes, transport) {
            Ok(question) => question,
            Err(reply) => {
                assert!(reply.is_none_or(|r| (12..=limit).contains(&r.len())));
                continue;
            }
        };
        let record = |n: u8| Record { name: "web.default.svc.cluster.local".into(), data: Data::A([10, 0, 0, n].into()) };
        let many = Answer::Records { answers: (0..80).map(record).collect(), additionals: vec![record(1)] };
        for answer in [Answer::NoName, Answer::NoData, Answer::Forward, many] {
            assert!((12..=limit).contains(&question.answer(&answer, &zone).len()));
        }
        let alias = Record { name: question.name().to_owned(), data: Data::Cname("a.example".into()) };
        if let Some(alias) = question.alias(&alias, "a.example", &zone) {
            assert!((12..=limit).contains(&question.aliased_reply(&alias, bytes).len()));
            assert!(Question::parse(alias.request(), transport).is_ok());
        }
    }
});
