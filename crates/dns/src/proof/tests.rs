//! What a liar who owns a zone of his own, signed or not, can and cannot do. The
//! proofs of single records are the validator's and taken for granted here.

use futures_util::stream;
use hickory_proto::dnssec::Algorithm;
use hickory_proto::dnssec::rdata::{DNSSECRData, NSEC, RRSIG, SigInput};
use hickory_proto::op::{DnsRequest, DnsResponse, Message};
use hickory_proto::rr::SerialNumber;
use hickory_proto::rr::rdata::{A, CNAME, SOA};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as Semantic, NetError};

use super::*;

/// Answers every question with the same; without that, it believes nothing. For
/// DS records it says that there are none, and that `unsigned` is a zone.
#[derive(Clone)]
struct Says {
    said: Option<Message>,
    unsigned: Option<&'static str>,
}

impl DnsHandle for Says {
    type Response = stream::Once<std::future::Ready<Result<DnsResponse, NetError>>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let query = &request.queries[0];
        let said = match query.query_type() {
            RecordType::DS => {
                let kind =
                    if self.unsigned.map(name).as_ref() == Some(query.name()) { RecordType::NS } else { RecordType::A };
                let owner = query.name().to_ascii();
                let mut message = Message::query();
                message.add_authorities(nsec_of(&owner, "zz.", ".", kind));
                Some(message)
            }
            _ => self.said.clone(),
        };
        stream::once(std::future::ready(match said {
            Some(message) => Ok(DnsResponse::from_message(message.into_response()).unwrap()),
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

/// What proves that there is nothing between two names of a zone.
fn nsec(owner: &str, next: &str, zone: &str) -> Vec<Record> {
    let mut records = vec![soa(zone, Proof::Secure)];
    records.extend(nsec_of(owner, next, zone, RecordType::MX));
    records
}

/// An NSEC record and the signature of `zone` on it.
fn nsec_of(owner: &str, next: &str, zone: &str, kind: RecordType) -> [Record; 2] {
    let data = RData::DNSSEC(DNSSECRData::NSEC(NSEC::new(name(next), [kind])));
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
/// address of `mx.example.test.`, in a signed zone.
async fn heard(answers: &[Record], authorities: &[Record]) -> Reply<std::net::IpAddr> {
    heard_below(None, answers, authorities).await
}

/// The same, where this zone is not signed.
async fn heard_below(
    unsigned: Option<&'static str>,
    answers: &[Record],
    authorities: &[Record],
) -> Reply<std::net::IpAddr> {
    let mut message = Message::query();
    message.add_answers(answers.iter().cloned());
    message.add_authorities(authorities.iter().cloned());
    let says = Says { said: Some(message), unsigned };
    records(&says, name("mx.example.test."), RecordType::A, RData::ip_addr).await
}

fn is_bogus<T: std::fmt::Debug>(reply: &Reply<T>) -> bool {
    matches!(reply, Err(DnsError::Bogus { .. }))
}

#[tokio::test]
async fn what_is_not_proved_is_believed_only_below_a_zone_that_is_not_signed() {
    for proof in [Proof::Insecure, Proof::Bogus, Proof::Indeterminate] {
        let (answer, absence) = ([address("mx.example.test.", proof)], [soa("example.test.", proof)]);
        for zone in ["test.", "example.test.", "mx.example.test."] {
            assert!(!heard_below(Some(zone), &answer, &[]).await.unwrap().authenticated, "{zone}");
            let reply = heard_below(Some(zone), &[], &absence).await;
            let ttl = Duration::from_secs(60);
            assert_eq!(reply, Err(DnsError::NoRecords { ttl, proved: false }), "{zone}");
        }
        for zone in [None, Some("other.test."), Some("evil."), Some("a.mx.example.test.")] {
            assert!(is_bogus(&heard_below(zone, &answer, &[]).await), "{zone:?}");
            assert!(is_bogus(&heard_below(zone, &[], &absence).await), "{zone:?}");
        }
    }
}

#[tokio::test]
async fn nobody_denies_what_is_not_theirs() {
    let foreign = nsec("a.evil.test.", "z.test.", "evil.test.");
    assert!(is_bogus(&heard(&[], &foreign).await));
    let own = nsec("mx.example.test.", "z.example.test.", "example.test.");
    assert!(matches!(heard(&[], &own).await, Err(DnsError::NoRecords { proved: true, .. })));
    assert!(is_bogus(&heard(&[], &[own.clone(), foreign].concat()).await));
    // One that nobody's signature was found for.
    assert!(is_bogus(&heard(&[], &own[..2]).await));
    // And without the record of the zone the validator mistakes wildcards.
    assert!(is_bogus(&heard(&[], &own[1..]).await));
    let above = [vec![soa("test.", Proof::Secure)], own].concat();
    assert!(is_bogus(&heard(&[], &above).await));
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
    let answer = heard_below(Some("b.test."), &chain, &[]).await.unwrap();
    assert_eq!((answer.authenticated, answer.alias.unwrap().first_proved), (false, true));
}

#[tokio::test]
async fn the_validators_no_is_final() {
    let reply =
        records(&Says { said: None, unsigned: None }, name("mx.example.test."), RecordType::A, RData::ip_addr).await;
    assert!(is_bogus(&reply));
}
