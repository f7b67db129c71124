//! The key pair that signs a domain's emails (RFC 6376), and the TXT record that publishes its
//! public half.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use openssl::error::ErrorStack;
use openssl::pkey::Private;
use openssl::rsa::Rsa;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use rand::TryRng;
use rand::rngs::SysRng;
use secrecy::SecretString;

use super::name::DomainName;
use crate::secret::{SecretRing, ServerSecret};

/// The selector under which the record is published: `tosend._domainkey.<domain>`.
pub const SELECTOR: &str = "tosend";

/// RFC 8301, 3.2: at least 1024, better 2048. A longer key would need more than two DNS strings.
const BITS: u32 = 2048;

/// The first byte of a sealed key, so that another format can follow.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

pub struct DkimKey(Rsa<Private>);

/// A key pair as stored in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// In the form of the record's `p=`.
    pub public: String,
    pub private: Vec<u8>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("OpenSSL cannot do it: {0}")]
    OpenSsl(#[from] ErrorStack),
    #[error("the system gives no random bytes")]
    Random,
    #[error("the key was sealed with another secret, for another domain, or is damaged")]
    Sealed,
}

impl DkimKey {
    /// Takes about 100 ms of CPU.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self(Rsa::generate(BITS)?))
    }

    /// The private key, encrypted (AES-256-GCM) with the server's secret, for this domain only.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub fn seal(&self, secret: &ServerSecret, domain: &DomainName) -> Result<Vec<u8>, Error> {
        let mut sealed = vec![VERSION; 1 + NONCE_BYTES + TAG_BYTES];
        let (nonce, tag) = sealed[1..].split_at_mut(NONCE_BYTES);
        SysRng.try_fill_bytes(nonce).map_err(|_| Error::Random)?;
        let encrypted = encrypt_aead(
            Cipher::aes_256_gcm(),
            &sealing_key(secret),
            Some(nonce),
            domain.as_ref().as_bytes(),
            &self.0.private_key_to_der()?,
            tag,
        )?;
        sealed.extend(encrypted);
        Ok(sealed)
    }

    /// # Errors
    /// If it was not sealed with this secret for this domain.
    pub fn open(sealed: &[u8], secret: &ServerSecret, domain: &DomainName) -> Result<Self, Error> {
        let (&VERSION, rest) = sealed.split_first().ok_or(Error::Sealed)? else {
            return Err(Error::Sealed);
        };
        let (nonce, rest) = rest.split_at_checked(NONCE_BYTES).ok_or(Error::Sealed)?;
        let (tag, encrypted) = rest.split_at_checked(TAG_BYTES).ok_or(Error::Sealed)?;
        let der = decrypt_aead(
            Cipher::aes_256_gcm(),
            &sealing_key(secret),
            Some(nonce),
            domain.as_ref().as_bytes(),
            encrypted,
            tag,
        )
        .map_err(|_| Error::Sealed)?;
        Ok(Self(Rsa::private_key_from_der(&der)?))
    }

    /// The same with whichever of the server's secrets it was sealed.
    ///
    /// # Errors
    /// As above, for none of them.
    pub fn open_with_any(
        sealed: &[u8],
        secrets: &SecretRing,
        domain: &DomainName,
    ) -> Result<Self, Error> {
        let open = |secret: &ServerSecret| Self::open(sealed, secret, domain).ok();
        secrets.find_map(open).ok_or(Error::Sealed)
    }

    /// The public key in the form of the record's `p=`: base64 of its SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// None known.
    pub fn public(&self) -> Result<String, Error> {
        Ok(STANDARD.encode(self.0.public_key_to_der()?))
    }

    /// The private key in PEM (PKCS#1), for signing.
    ///
    /// # Errors
    /// None known.
    pub fn private_pem(&self) -> Result<SecretString, Error> {
        let pem = self.0.private_key_to_pem()?;
        Ok(String::from_utf8_lossy(&pem).into_owned().into())
    }
}

impl SealedKey {
    /// A new pair for a domain. Takes about 100 ms of CPU.
    ///
    /// # Errors
    /// If the system provides no random bytes.
    pub fn make(secret: &ServerSecret, domain: &DomainName) -> Result<Self, Error> {
        let key = DkimKey::generate()?;
        Ok(Self {
            public: key.public()?,
            private: key.seal(secret, domain)?,
        })
    }
}

impl fmt::Debug for DkimKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DkimKey")
    }
}

fn sealing_key(secret: &ServerSecret) -> [u8; 32] {
    secret.key_for("the private keys of domains")
}

/// The name of a domain's record.
pub fn record_name(domain: &str) -> String {
    format!("{SELECTOR}._domainkey.{domain}")
}

/// The text of a domain's record (RFC 6376, 3.6.1) for its public key in base64.
pub fn record_text(public: &str) -> String {
    format!("v=DKIM1; k=rsa; p={public}")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_key_is_opened_with_its_secret_and_for_its_domain_only() {
        let folder = tempfile::tempdir().unwrap();
        let secret = |name: &str| {
            let ring = SecretRing::read_or_make(&folder.path().join(name)).unwrap();
            ring.current().clone()
        };
        let (ours, theirs) = (secret("a"), secret("b"));
        let domain = |name| DomainName::parse(name).unwrap();
        let key = DkimKey::generate().unwrap();
        let sealed = key.seal(&ours, &domain("acme.test")).unwrap();

        let opened = DkimKey::open(&sealed, &ours, &domain("acme.test")).unwrap();
        let pem = |key: &DkimKey| key.private_pem().unwrap().expose_secret().to_owned();
        assert_eq!(pem(&opened), pem(&key));
        assert_eq!(opened.public().unwrap(), key.public().unwrap());

        assert!(DkimKey::open(&sealed, &theirs, &domain("acme.test")).is_err());
        assert!(DkimKey::open(&sealed, &ours, &domain("shop.test")).is_err());
        for at in [0, 1, 20, sealed.len() - 1] {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert!(DkimKey::open(&damaged, &ours, &domain("acme.test")).is_err());
        }
        for length in [0, 1, 28, 29] {
            assert!(DkimKey::open(&sealed[..length], &ours, &domain("acme.test")).is_err());
        }
    }

    #[test]
    fn a_sealed_key_tells_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let ring = SecretRing::read_or_make(&folder.path().join("secret")).unwrap();
        let secret = ring.current();
        let domain = DomainName::parse("acme.test").unwrap();
        let key = DkimKey::generate().unwrap();
        let [one, other] = [(); 2].map(|()| key.seal(secret, &domain).unwrap());
        assert_ne!(one[1..13], other[1..13]);
        assert_ne!(one[29..], other[29..]);
    }
}
