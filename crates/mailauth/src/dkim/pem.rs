//! The wrappings that private keys come in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::KeyError;

/// More than the PEM of the longest key with every attribute.
const MAX_TEXT: usize = 64 * 1024;

/// The DER of the first private key in `text`.
pub(super) fn private_key(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if text.len() > MAX_TEXT {
        return Err(KeyError::Damaged("it is longer than 64 KiB"));
    }
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(KeyError::Encrypted);
    }
    if !text.contains("-----BEGIN ") {
        return bare(text);
    }
    if !text.contains("PRIVATE KEY-----") {
        return Err(KeyError::Damaged("it holds no PRIVATE KEY; is it the public key, or a certificate?"));
    }
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(PrivateKeyDer::Sec1(_)) => Err(KeyError::Kind),
        Ok(key) => Ok(Zeroizing::new(key.secret_der().to_vec())),
        Err(_) => Err(KeyError::Damaged("the lines between BEGIN and END are not whole")),
    }
}

/// Base64 without its frame, on one line or several.
fn bare(text: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let joined: Zeroizing<String> = Zeroizing::new(text.split_ascii_whitespace().collect());
    if joined.is_empty() {
        return Err(KeyError::Damaged("it is empty"));
    }
    let decoded = STANDARD.decode(joined.as_bytes());
    decoded.map(Zeroizing::new).map_err(|_| KeyError::Damaged("it has no BEGIN line and is no base64"))
}

/// What a DER is that is neither RSA nor Ed25519: a whole document of another kind of key,
/// or no document.
pub(super) fn not_ours(der: &[u8]) -> KeyError {
    // DER: a SEQUENCE whose length is that of what follows.
    let whole = match der {
        [0x30, len @ 0..=0x7f, rest @ ..] => usize::from(*len) == rest.len(),
        [0x30, 0x81, len, rest @ ..] => usize::from(*len) == rest.len(),
        [0x30, 0x82, high, low, rest @ ..] => usize::from(u16::from_be_bytes([*high, *low])) == rest.len(),
        _ => false,
    };
    // RSA's own identifier, 1.2.840.113549.1.1.1: such a key is broken, not of another kind.
    let rsa = der.windows(9).any(|window| window == [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01]);
    // PKCS#1 begins with the version, then a long modulus.
    let pkcs1 = der.len() > 12 && der[4..].starts_with(&[0x02, 0x01, 0x00, 0x02, 0x82]);
    if whole && !rsa && !pkcs1 { KeyError::Kind } else { KeyError::Damaged("what it holds is not a whole key") }
}
