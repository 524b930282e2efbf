use super::*;

/// What `openssl genrsa -traditional 1024` makes: nobody's key.
const SHORT_PKCS1: &str = include_str!("../../tests/keys/rsa-1024-pkcs1.pem");
const SHORT_PKCS8: &str = include_str!("../../tests/keys/rsa-1024-pkcs8.pem");
const PKCS1: &str = include_str!("../../tests/keys/rsa-2048-pkcs1.pem");
const PKCS8: &str = include_str!("../../tests/keys/rsa-2048-pkcs8.pem");
const LONG: &str = include_str!("../../tests/keys/rsa-5120.pem");
const LONGEST: &str = include_str!("../../tests/keys/rsa-4096.pem");
const ED25519: &str = include_str!("../../tests/keys/ed25519.pem");
const EC: &str = include_str!("../../tests/keys/ec.pem");
const EC_SEC1: &str = include_str!("../../tests/keys/ec-sec1.pem");
const ENCRYPTED: &str = include_str!("../../tests/keys/encrypted.pem");
const PUBLIC: &str = include_str!("../../tests/keys/public.pem");

fn public(text: &str) -> PublicKey {
    PrivateKey::from_pem(text).unwrap().public().unwrap()
}

fn refused(text: &str) -> KeyError {
    PrivateKey::from_pem(text).unwrap_err()
}

#[test]
fn both_wrappings_hold_the_same_key() {
    let base64: String = PKCS1.lines().filter(|line| !line.starts_with("-----")).collect();
    for text in [PKCS1, PKCS8, &base64, &PKCS8.replace('\n', "\r\n")] {
        assert_eq!(public(text).record(), public(PKCS8).record());
    }
    // As openssl rsa -pubout writes it.
    let published: String = PUBLIC.lines().filter(|line| !line.starts_with("-----")).collect();
    assert_eq!(public(PKCS8).record(), format!("v=DKIM1; k=rsa; p={published}"));
    assert_eq!(public(PKCS8).fingerprint().len(), 64);
    assert_eq!(public(ED25519).algorithm(), Algorithm::Ed25519Sha256);
    assert_eq!(public(LONGEST).algorithm(), Algorithm::RsaSha256);
}

#[test]
fn unfit_keys_are_refused_with_the_reason_and_the_way_out() {
    for text in [SHORT_PKCS1, SHORT_PKCS8] {
        let error = refused(text);
        assert_eq!(error, KeyError::TooShort);
        assert!(error.to_string().contains("2048 bits") && error.to_string().contains("openssl genrsa 2048"));
    }
    assert_eq!(refused(LONG), KeyError::TooLong(5120));
    assert_eq!(refused(EC), KeyError::Kind);
    assert_eq!(refused(EC_SEC1), KeyError::Kind);
    assert_eq!(refused(ENCRYPTED), KeyError::Encrypted);
}

#[test]
fn damaged_keys_are_refused() {
    let lines: Vec<&str> = PKCS8.lines().collect();
    let without_a_line = [&lines[..5], &lines[6..]].concat().join("\n");
    let cut = lines[..lines.len() / 2].join("\n");
    let wrong_letter = PKCS8.replacen(&lines[3][..8], "********", 1);
    for text in ["", " \n", "no key", PUBLIC, &without_a_line, &cut, &wrong_letter, &"A".repeat(70_000)] {
        assert!(matches!(refused(text), KeyError::Damaged(_)), "{text:.40} gives {:?}", refused(text));
    }
}

#[test]
fn made_keys_come_back_from_their_bytes_and_show_nothing() {
    for algorithm in [Algorithm::RsaSha256, Algorithm::Ed25519Sha256] {
        let key = PrivateKey::generate(algorithm).unwrap();
        let again = PrivateKey::from_der(key.to_der()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(key.algorithm(), algorithm);
        assert_eq!(format!("{key:?}"), format!("PrivateKey {{ algorithm: {algorithm:?}, .. }}"));
        assert_ne!(PrivateKey::generate(algorithm).unwrap().public(), key.public());
    }
}

#[test]
fn an_ed25519_record_holds_the_bare_key() {
    let record = PrivateKey::generate(Algorithm::Ed25519Sha256).unwrap().public().unwrap().record();
    assert_eq!(record.strip_prefix("v=DKIM1; k=ed25519; p=").unwrap().len(), 44);
}
