//! JSON web tokens, and the set of keys that they are signed with.

use std::fmt;

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use crate::base::limits;

/// Keys, and what tokens must say beside `sub` and `exp`.
pub struct Jwt {
    keys: Vec<Key>,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwt({} keys)", self.keys.len())
    }
}

/// A key has one algorithm. What a token says of its own is compared with that, never believed.
struct Key {
    id: Option<String>,
    key: DecodingKey,
    validation: Validation,
}

/// What must be in a token, where it is configured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Claims {
    /// Who made it.
    pub issuer: Option<String>,
    /// For whom it is made.
    pub audience: Option<String>,
}

/// Why a file is no set of keys.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// It is something else.
    #[error("it is no JWKS; expected a JSON object with \"keys\"")]
    NoSet,
    /// There is none that we can use.
    #[error(
        "it has no key for signatures by HS256 (32 bytes or more), EdDSA (Ed25519), ES256 or RS256"
    )]
    NoKey,
    /// There are more than we would try.
    #[error("it has more than {} keys", limits::JWT_KEYS_MAX)]
    TooMany,
}

/// The claims are looked at by the validation; nothing else is wanted of them.
#[derive(Deserialize)]
struct Nothing {}

impl Jwt {
    /// Takes the keys of a set. Keys for something else are left out, as such sets have them.
    ///
    /// # Errors
    /// When no key is left.
    pub fn new(jwks: &str, claims: &Claims) -> Result<Self, JwksError> {
        let set: JwkSet = serde_json::from_str(jwks).map_err(|_| JwksError::NoSet)?;
        let keys: Vec<Key> = set.keys.iter().filter_map(|jwk| key_of(jwk, claims)).collect();
        match keys.len() {
            0 => Err(JwksError::NoKey),
            1..=limits::JWT_KEYS_MAX => Ok(Self { keys }),
            _ => Err(JwksError::TooMany),
        }
    }

    /// Whether the token was signed with one of the keys for this client, and holds now.
    pub fn proves(&self, client: &str, token: &[u8]) -> bool {
        let Ok(header) = decode_header(token) else { return false };
        // Whatever it says must be understood, is not.
        if header.crit.is_some() {
            return false;
        }
        let is_asked = |key: &&Key| match (&key.id, &header.kid) {
            (Some(own), Some(said)) => own == said,
            (None, _) | (_, None) => true,
        };
        let mut asked = self.keys.iter().filter(is_asked);
        asked
            .any(|key| key.validation.algorithms.contains(&header.alg) && key.proves(client, token))
    }
}

impl Key {
    fn proves(&self, client: &str, token: &[u8]) -> bool {
        let mut validation = self.validation.clone();
        validation.sub = Some(client.to_owned());
        decode::<Nothing>(token, &self.key, &validation).is_ok()
    }
}

fn key_of(jwk: &Jwk, claims: &Claims) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, KeyAlgorithm::HS256),
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        AlgorithmParameters::EllipticCurve(_)
        | AlgorithmParameters::OctetKeyPair(_)
        | AlgorithmParameters::Other(_)
        | _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|said| said != name) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    if algorithm == Algorithm::HS256
        && key.try_get_as_bytes().ok()?.len() < limits::JWT_SECRET_BYTES_MIN
    {
        return None;
    }
    let mut validation = Validation::new(algorithm);
    let mut required = vec!["exp", "sub"];
    if let Some(issuer) = &claims.issuer {
        validation.set_issuer(&[issuer]);
        required.push("iss");
    }
    match &claims.audience {
        Some(audience) => {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        None => validation.validate_aud = false,
    }
    validation.set_required_spec_claims(&required);
    validation.validate_nbf = true;
    validation.leeway = limits::JWT_LEEWAY_S;
    Some(Key { id: jwk.common.key_id.clone(), key, validation })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    /// In the years 2001 and 2100, in seconds since 1970.
    const BEFORE: u64 = 1_000_000_000;
    const LATER: u64 = 4_102_444_800;

    /// A new key, and the part of it that everybody may know.
    fn pair(algorithm: Algorithm) -> (EncodingKey, Value) {
        if algorithm == Algorithm::EdDSA {
            let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
            let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
            let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "a" });
            return (EncodingKey::from_ed_der(&pair.serialize_der()), jwk);
        }
        let key = private(algorithm).expect("a key");
        let jwk = jwk(&key, algorithm, "a");
        (key, jwk)
    }

    fn private(algorithm: Algorithm) -> jsonwebtoken::errors::Result<EncodingKey> {
        let pem = |kind| KeyPair::generate_for(kind).expect("a key").serialize_pem();
        if algorithm == Algorithm::ES256 {
            EncodingKey::from_ec_pem(pem(&PKCS_ECDSA_P256_SHA256).as_bytes())
        } else if algorithm == Algorithm::RS256 {
            EncodingKey::from_rsa_pem(pem(&PKCS_RSA_SHA256).as_bytes())
        } else {
            Ok(EncodingKey::from_secret(SECRET))
        }
    }

    fn jwk(key: &EncodingKey, algorithm: Algorithm, id: &str) -> Value {
        let mut jwk = Jwk::from_encoding_key(key, algorithm).expect("a key");
        jwk.common.key_id = Some(id.to_owned());
        serde_json::to_value(&jwk).expect("it is JSON")
    }

    fn set(keys: &[Value]) -> String {
        json!({ "keys": keys }).to_string()
    }

    fn sign(key: &EncodingKey, algorithm: Algorithm, claims: &Value) -> Vec<u8> {
        encode(&Header::new(algorithm), claims, key).expect("it can be signed").into_bytes()
    }

    const ALL: [Algorithm; 4] =
        [Algorithm::HS256, Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256];

    #[test]
    fn a_token_of_each_kind_proves_its_subject_while_it_holds() {
        for algorithm in ALL {
            let ((key, public), (other, _)) = (pair(algorithm), pair(algorithm));
            let jwt = Jwt::new(&set(&[public]), &Claims::default());
            let jwt = jwt.expect("a set of one key");
            let proves = |claims: Value| jwt.proves("anna", &sign(&key, algorithm, &claims));
            let good = json!({ "sub": "anna", "exp": LATER });
            assert!(proves(good.clone()), "{algorithm:?}");
            for (wrong, claims) in [
                ("expired", json!({ "sub": "anna", "exp": BEFORE })),
                ("for ever", json!({ "sub": "anna" })),
                ("another client's", json!({ "sub": "bert", "exp": LATER })),
                ("nobody's", json!({ "exp": LATER })),
                ("not yet", json!({ "sub": "anna", "exp": LATER, "nbf": LATER - 1 })),
            ] {
                assert!(!proves(claims), "{algorithm:?}: {wrong}");
            }
            if algorithm != Algorithm::HS256 {
                assert!(!jwt.proves("anna", &sign(&other, algorithm, &good)), "{algorithm:?}");
            }
            let mut token = sign(&key, algorithm, &good);
            assert!(!jwt.proves("bert", &token));
            let last = token.len() - 10;
            token[last] = if token[last] == b'A' { b'B' } else { b'A' };
            assert!(!jwt.proves("anna", &token), "{algorithm:?}: another signature");
        }
    }

    #[test]
    fn the_key_says_the_algorithm_and_never_the_token() {
        let (_, public) = pair(Algorithm::RS256);
        let jwt = Jwt::new(&set(std::slice::from_ref(&public)), &Claims::default()).expect("a set");
        let claims = json!({ "sub": "anna", "exp": LATER });
        // The public key as the secret of an HMAC, in every form that an attacker may guess.
        let modulus = public["n"].as_str().expect("the modulus");
        let bytes = URL_SAFE_NO_PAD.decode(modulus).expect("base64url");
        for secret in [modulus.as_bytes(), &bytes, public.to_string().as_bytes()] {
            let confused = EncodingKey::from_secret(secret);
            assert!(!jwt.proves("anna", &sign(&confused, Algorithm::HS256, &claims)));
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        for algorithm in ["none", "None", "NONE", "nOnE", "HS256", "RS256"] {
            let header = part(&json!({ "alg": algorithm, "typ": "JWT" }));
            let token = format!("{header}.{}.", part(&claims));
            assert!(!jwt.proves("anna", token.as_bytes()), "{algorithm}");
            assert!(!jwt.proves("anna", token.trim_end_matches('.').as_bytes()), "{algorithm}");
        }
        for nonsense in [&b""[..], b".", b"..", b"...", &[0xff; 64]] {
            assert!(!jwt.proves("anna", nonsense));
        }
    }

    #[test]
    fn what_is_configured_must_be_said() {
        let (key, public) = pair(Algorithm::HS256);
        let keys = set(&[public]);
        let wanted = Claims { issuer: Some("us".into()), audience: Some("gate".into()) };
        let (strict, lax) = (Jwt::new(&keys, &wanted), Jwt::new(&keys, &Claims::default()));
        let (strict, lax) = (strict.expect("a set"), lax.expect("a set"));
        for (issuer, audience, expected) in [
            (json!("us"), json!("gate"), true),
            (json!("us"), json!(["other", "gate"]), true),
            (json!("them"), json!("gate"), false),
            (json!("us"), json!("other"), false),
            (Value::Null, json!("gate"), false),
            (json!("us"), Value::Null, false),
        ] {
            let mut claims = json!({ "sub": "anna", "exp": LATER });
            for (name, value) in [("iss", &issuer), ("aud", &audience)] {
                if !value.is_null() {
                    claims[name] = value.clone();
                }
            }
            let token = sign(&key, Algorithm::HS256, &claims);
            assert_eq!(strict.proves("anna", &token), expected, "{claims}");
            assert!(lax.proves("anna", &token), "{claims}");
        }
    }

    #[test]
    fn a_set_has_keys_that_can_be_used() {
        let new = |text: &str| Jwt::new(text, &Claims::default()).map(|jwt| jwt.keys.len());
        assert!(matches!(new("no JSON"), Err(JwksError::NoSet)));
        assert!(matches!(new(&set(&[])), Err(JwksError::NoKey)));
        let short = jwk(&EncodingKey::from_secret(b"short"), Algorithm::HS256, "a");
        assert!(matches!(new(&set(&[short])), Err(JwksError::NoKey)));
        let mut keys: Vec<Value> = ALL.map(|algorithm| pair(algorithm).1).into();
        assert_eq!(new(&set(&keys)).expect("four"), 4);
        keys[0]["use"] = "enc".into();
        keys[3]["alg"] = "PS256".into();
        assert_eq!(new(&set(&keys)).expect("those for something else are left out"), 2);
        let many = vec![keys[1].clone(); limits::JWT_KEYS_MAX + 1];
        assert!(matches!(new(&set(&many)), Err(JwksError::TooMany)));
        let jwt = Jwt::new(&set(&keys), &Claims::default()).expect("a set");
        assert_eq!(format!("{jwt:?}"), "Jwt(2 keys)");
    }
}
