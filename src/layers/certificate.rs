//! Certificates as they are read: files in PEM, and the name in what a client has shown.

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use webpki::EndEntityCert;

/// Why a file of certificates or a key is of no use.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum PemError {
    /// No certificate is in it.
    #[error("holds no certificate; expected PEM: -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    /// No list of revoked certificates is in it.
    #[error("holds no list of revoked certificates; expected PEM: -----BEGIN X509 CRL-----")]
    NoList,
    /// No private key is in it.
    #[error("holds no private key; expected PEM without a passphrase: -----BEGIN PRIVATE KEY-----")]
    NoKey,
    /// What is in it cannot be read.
    #[error("is no PEM that can be read ({0})")]
    Unreadable(String),
}

/// The certificates of a PEM file, in order.
///
/// # Errors
/// When there is none, or one cannot be read.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(PemError::NoCertificate),
        Ok(all) => Ok(all),
        Err(error) => Err(PemError::Unreadable(error.to_string())),
    }
}

/// The lists of revoked certificates of a PEM file.
///
/// # Errors
/// When there is none, or one cannot be read.
pub fn revocation_lists(
    pem: &[u8],
) -> Result<Vec<CertificateRevocationListDer<'static>>, PemError> {
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if all.is_empty() => Err(PemError::NoList),
        Ok(all) => Ok(all),
        Err(error) => Err(PemError::Unreadable(error.to_string())),
    }
}

/// The first private key of a PEM file.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    use rustls_pki_types::pem::Error;
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(Error::NoItemsFound) => Err(PemError::NoKey),
        Err(error) => Err(PemError::Unreadable(error.to_string())),
    }
}

/// The name of whom a certificate is for: its first DNS name, or its first URI, or, where it has
/// neither, its common name. It says nothing about whether the certificate is to be believed.
pub fn name(certificate: &CertificateDer<'_>) -> Option<Box<str>> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let alternative =
        certificate.valid_dns_names().next().or_else(|| certificate.valid_uri_names().next());
    match alternative {
        Some(name) => Some(name.into()),
        None => common_name(certificate.subject()),
    }
}

/// Tags of DER, of what a distinguished name is made.
const SET: u8 = 0x31;
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
const STRINGS: [u8; 3] = [0x0C, 0x13, 0x16]; // UTF-8, printable, IA5
/// 2.5.4.3, in DER.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The last, which is the most particular, common name of a distinguished name.
fn common_name(mut subject: &[u8]) -> Option<Box<str>> {
    let mut found = None;
    while let Some((SET, mut set, behind)) = element(subject) {
        subject = behind;
        while let Some((SEQUENCE, pair, others)) = element(set) {
            set = others;
            let Some((OBJECT_IDENTIFIER, kind, value)) = element(pair) else { continue };
            let Some((tag, text, _)) = element(value) else { continue };
            if kind == COMMON_NAME && STRINGS.contains(&tag) {
                found = str::from_utf8(text).ok().filter(|text| !text.is_empty());
            }
        }
    }
    found.map(Box::from)
}

/// The first element of `bytes`: its tag, what is in it, and what is behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match first {
        short if short < 0x80 => (usize::from(short), rest),
        0x81 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (content, behind) = rest.split_at_checked(length)?;
    Some((tag, content, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    fn certificate(names: &[SanType], common: &[&str]) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.to_vec();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Mill");
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("a certificate").der().clone()
    }

    #[test]
    fn a_dns_name_goes_before_a_uri_and_a_uri_before_a_common_name() {
        let dns = |name: &str| SanType::DnsName(name.try_into().expect("a name"));
        let uri = |name: &str| SanType::URI(name.try_into().expect("a name"));
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let long = "n".repeat(300);
        for (names, common, expected) in [
            (vec![uri("urn:mill:7"), dns("first.mill"), dns("second.mill")], "cn", "first.mill"),
            (vec![uri("urn:mill:7"), uri("urn:mill:8")], "cn", "urn:mill:7"),
            (vec![], "mill-7", "mill-7"),
            (vec![address], "Mühle 7", "Mühle 7"),
            (vec![], long.as_str(), long.as_str()),
        ] {
            let found = name(&certificate(&names, &[common]));
            assert_eq!(found.as_deref(), Some(expected), "{names:?}");
        }
    }

    #[test]
    fn who_has_no_name_has_none() {
        assert_eq!(name(&certificate(&[], &[])), None);
        assert_eq!(name(&certificate(&[], &[""])), None);
        assert_eq!(name(&CertificateDer::from(b"no certificate".to_vec())), None);
    }

    #[test]
    fn a_file_without_what_is_looked_for_is_refused_with_an_example() {
        let key = KeyPair::generate().expect("a key").serialize_pem();
        assert_eq!(certificates(b""), Err(PemError::NoCertificate));
        assert_eq!(certificates(key.as_bytes()), Err(PemError::NoCertificate));
        assert_eq!(private_key(b"hello").expect_err("no key"), PemError::NoKey);
        assert!(private_key(key.as_bytes()).is_ok());
        let broken = key.replace("PRIVATE KEY", "CERTIFICATE").replace('M', "!");
        assert!(matches!(certificates(broken.as_bytes()), Err(PemError::Unreadable(_))));
    }

    proptest! {
        #[test]
        fn whatever_a_subject_is_it_is_read(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..60),
            start in any::<bool>(),
        ) {
            if start {
                bytes.splice(0..0, [SET, 40, SEQUENCE, 38, OBJECT_IDENTIFIER, 3, 0x55, 4, 3, 0x0C]);
            }
            if let Some(name) = common_name(&bytes) {
                prop_assert!(!name.is_empty() && name.len() < bytes.len());
            }
        }
    }
}
