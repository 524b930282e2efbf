//! What a liar who owns a zone of his own, signed or not, can and cannot do. The
//! proofs of single records are the validator's and taken for granted here.

use futures_util::stream;
use hickory_proto::dnssec::Algorithm;
use hickory_proto::dnssec::rdata::{NSEC, RRSIG, SigInput};
use hickory_proto::op::{DnsRequest, DnsResponse};
use hickory_proto::rr::SerialNumber;
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use super::*;

/// Answers every question with the same; without that, it believes nothing.
#[derive(Clone)]
struct Says(Option<Message>);

impl DnsHandle for Says {
    type Response = stream::Once<std::future::Ready<Result<DnsResponse, NetError>>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, _: DnsRequest) -> Self::Response {
        stream::once(std::future::ready(match &self.0 {
            Some(message) => Ok(DnsResponse::from_message(message.clone().into_response()).unwrap()),
            None => Err(Semantic::DnssecBogus.into()),
        }))
    }
}

fn name(text: &str) -> Name {
    Name::from_ascii(text).unwrap()
}

fn record(owner: &str, data: RData, proof: Proof) -> Record {
    let mut record = Record::from_rdata(name(owner), 300, data);
    record.proof = proof;
    record
}

fn address(owner: &str, proof: Proof) -> Record {
    record(owner, RData::A(A::new(192, 0, 2, 1)), proof)
}

fn soa(owner: &str, proof: Proof) -> Record {
    record(owner, RData::SOA(SOA::new(name("ns."), name("me."), 1, 1, 1, 1, 60)), proof)
}

/// An NSEC record and the signature of `zone` on it.
fn nsec(owner: &str, next: &str, zone: &str) -> [Record; 2] {
    let data = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(name(next), [RecordType::A])));
    [record(owner, data, Proof::Secure), signature(owner, RecordType::NSEC, name(owner).num_labels(), zone)]
}

fn signature(owner: &str, kind: RecordType, labels: u8, zone: &str) -> Record {
    let input = SigInput {
        type_covered: kind,
        algorithm: Algorithm::ECDSAP256SHA256,
        num_labels: labels,
        original_ttl: 300,
        sig_expiration: SerialNumber::new(0),
        sig_inception: SerialNumber::new(0),
        key_tag: 1,
        signer_name: name(zone),
    };
    record(owner, RData::DNSSEC(DNSSECRData::RRSIG(RRSIG::from_sig(input, vec![1]))), Proof::Secure)
}

/// What is made of these answers and authorities to the question for the
/// address of `mx.example.test.`.
async fn heard(answers: &[Record], authorities: &[Record]) -> Reply<std::net::IpAddr> {
    let mut message = Message::query();
    message.add_answers(answers.iter().cloned());
    message.add_authorities(authorities.iter().cloned());
    records(&Says(Some(message)), name("mx.example.test."), RecordType::A, RData::ip_addr).await
}

fn is_bogus<T: std::fmt::Debug>(reply: &Reply<T>) -> bool {
    matches!(reply, Err(DnsError::Bogus { .. }))
}

#[tokio::test]
async fn a_zone_that_is_not_signed_speaks_for_itself_alone() {
    for owner in ["other.test.", "evil.", "a.mx.example.test."] {
        assert!(is_bogus(&heard(&[], &[soa(owner, Proof::Insecure)]).await), "{owner}");
    }
    for owner in ["mx.example.test.", "example.test.", "."] {
        let reply = heard(&[], &[soa(owner, Proof::Insecure)]).await;
        let ttl = Duration::from_secs(60);
        assert_eq!(reply, Err(DnsError::NoRecords { ttl, proved: false }), "{owner}");
    }
}

#[tokio::test]
async fn nobody_denies_what_is_not_theirs() {
    let foreign = nsec("a.evil.test.", "z.test.", "evil.test.");
    assert!(is_bogus(&heard(&[], &foreign).await));
    let own = nsec("mx.example.test.", "z.example.test.", "example.test.");
    assert!(matches!(heard(&[], &own).await, Err(DnsError::NoRecords { proved: true, .. })));
    assert!(is_bogus(&heard(&[], &[own, foreign].concat()).await));
    // One that nobody's signature was found for.
    assert!(is_bogus(&heard(&[], &nsec("mx.example.test.", "z.example.test.", "example.test.")[..1]).await));
}

#[tokio::test]
async fn a_wildcard_stands_only_for_names_that_are_not_there() {
    let zone = "example.test.";
    let expanded = [address("mx.example.test.", Proof::Secure), signature("mx.example.test.", RecordType::A, 2, zone)];
    let good = nsec("a.example.test.", "z.example.test.", zone);
    assert!(heard(&expanded, &good).await.unwrap().authenticated);
    let last = nsec("a.example.test.", zone, zone);
    assert!(heard(&expanded, &last).await.unwrap().authenticated);
    assert!(is_bogus(&heard(&expanded, &[]).await));
    assert!(is_bogus(&heard(&expanded, &nsec("a.evil.test.", "z.test.", "evil.test.")).await));
    // A signature for the name itself needs none of that.
    let own = [expanded[0].clone(), signature("mx.example.test.", RecordType::A, 3, zone)];
    assert!(heard(&own, &[]).await.unwrap().authenticated);
}

#[tokio::test]
async fn each_record_must_be_believable() {
    let proofs = |proof| async move { heard(&[address("mx.example.test.", proof)], &[]).await };
    assert!(proofs(Proof::Secure).await.unwrap().authenticated);
    assert!(!proofs(Proof::Insecure).await.unwrap().authenticated);
    assert!(is_bogus(&proofs(Proof::Bogus).await));
    assert!(is_bogus(&proofs(Proof::Indeterminate).await));
    let mixed = [address("mx.example.test.", Proof::Secure), address("mx.example.test.", Proof::Bogus)];
    assert!(is_bogus(&heard(&mixed, &[]).await));
    // What was not asked for is nothing.
    assert!(is_bogus(&heard(&[address("x.example.test.", Proof::Secure)], &[soa("x.", Proof::Insecure)]).await));
}

#[tokio::test]
async fn aliases_end() {
    let alias = |owner, target| record(owner, RData::CNAME(CNAME(name(target))), Proof::Secure);
    let circle = [alias("mx.example.test.", "b.test."), alias("b.test.", "mx.example.test.")];
    let reply = heard(&circle, &[]).await;
    assert!(matches!(reply, Err(DnsError::Temporary { .. })), "{reply:?}");
    let chain = [alias("mx.example.test.", "b.test."), address("b.test.", Proof::Insecure)];
    let answer = heard(&chain, &[]).await.unwrap();
    assert_eq!((answer.authenticated, answer.alias.unwrap().first_proved), (false, true));
}

#[tokio::test]
async fn the_validators_no_is_final() {
    let reply = records(&Says(None), name("mx.example.test."), RecordType::A, RData::ip_addr).await;
    assert!(is_bogus(&reply));
}
