//! Opaque random tokens (session ids, form nonces, message ids) and the hash they are stored as.

use rand::distr::{Alphanumeric, SampleString};
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

/// 32 Base62 characters from the operating system's generator: 190 bits.
pub fn random() -> String {
    Alphanumeric.sample_string(&mut UnwrapErr(SysRng), 32)
}

/// SHA-256, so that a stolen database contains no usable token.
pub fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
