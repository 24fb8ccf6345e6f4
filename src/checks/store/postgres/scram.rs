//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding: the conversation has no TLS.
//!
//! The password is used byte for byte, without SASLprep (RFC 4013), whose tables of Unicode are larger than all the
//! rest of a check. SASLprep gives every ASCII password back as it is, and nearly every other one: letters of any
//! script with or without accents, `€`, `§`. PostgreSQL itself takes the plain bytes of a password that SASLprep refuses.
//! What it changes are compatibility characters such as `²`, `µ`, `…` and full-width letters, accents apart from their
//! letters, spaces other than ASCII's, and characters without a shape; a password with those logs in if it is given as
//! SASLprep leaves it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub(super) const SCRAM_SHA_256: &str = "SCRAM-SHA-256";

/// Random bytes of a nonce; libpq takes as many.
pub(super) const NONCE: usize = 18;

/// Longest message of a server, in bytes. PostgreSQL's are of about a hundred.
const MOST_MESSAGE: usize = 1024;

/// Most rounds that a server may ask for. PostgreSQL asks for 4096 unless it is told otherwise.
const MOST_ROUNDS: u32 = 100_000;

/// Rounds between two looks at the clock: about a millisecond.
const ROUNDS_AT_A_TIME: u32 = 1000;

/// Of the client's first message and, in Base64, of its last one: no channel binding, and no other name to act for.
const HEADER: &str = "n,,";
const HEADER_IN_BASE64: &str = "biws";

/// An exchange that the client has begun.
pub(super) struct Begun {
    nonce: String,
    /// The first message without its header.
    bare: String,
}

/// An exchange in which the client has proved that it knows the password.
pub(super) struct Proved {
    message: String,
    /// What the server signs, under its key.
    signature: Hmac<Sha256>,
}

impl Begun {
    /// `user` holds no comma and no equals sign; PostgreSQL goes by the name in the start-up, and wants none here.
    pub(super) fn new(user: &str, nonce: String) -> Self {
        let bare = format!("n={user},r={nonce}");
        Self { nonce, bare }
    }

    /// The client's first message.
    pub(super) fn message(&self) -> String {
        [HEADER, &self.bare].concat()
    }

    /// Takes the server's first message. `in_time` is asked again and again whether to go on.
    ///
    /// # Errors
    /// What is wrong with the message; it may hold the server's text.
    pub(super) fn prove(
        self,
        password: &[u8],
        first: &[u8],
        in_time: impl Fn() -> bool,
    ) -> Result<Proved, String> {
        let first = text(first)?;
        let challenge = Challenge::parse(first).ok_or("expected a challenge, found none")?;
        if !challenge.nonce.starts_with(&self.nonce) {
            return Err("expected the client's nonce, found another".to_owned());
        }
        let rounds = challenge.rounds;
        if !(1..=MOST_ROUNDS).contains(&rounds) {
            return Err(format!(
                "expected 1 to {MOST_ROUNDS} iterations, found {rounds}"
            ));
        }
        let salted = salted(password, &challenge.salt, rounds, in_time).ok_or("no time left")?;

        let mut message = format!("c={HEADER_IN_BASE64},r={}", challenge.nonce);
        let signed = [&self.bare, first, &message]
            .map(str::as_bytes)
            .join(&b","[..]);
        let client_key = sign(&salted, b"Client Key");
        let mut proof = sign(&Sha256::digest(client_key).into(), &signed);
        mix(&mut proof, &client_key);
        message.push_str(",p=");
        STANDARD.encode_string(proof, &mut message);

        let signature = keyed(&sign(&salted, b"Server Key")).chain_update(signed);
        Ok(Proved { message, signature })
    }
}

impl Proved {
    /// The client's last message.
    pub(super) fn message(&self) -> &[u8] {
        self.message.as_bytes()
    }

    /// Takes the server's last message, and finds out whether it too knows the password.
    ///
    /// # Errors
    /// What is wrong with the message; it may hold the server's text.
    pub(super) fn verify(self, last: &[u8]) -> Result<(), String> {
        let attribute = text(last)?.split(',').next().unwrap_or_default();
        if let Some(error) = attribute.strip_prefix("e=") {
            return Err(error.to_owned());
        }
        let signature = attribute.strip_prefix("v=");
        let signature = signature.and_then(|signature| STANDARD.decode(signature).ok());
        let signature = signature.ok_or("expected a signature, found none")?;
        let verified = self.signature.verify_slice(&signature);
        verified.map_err(|_| {
            "expected the signature of one who knows the password, found another".to_owned()
        })
    }
}

/// What the server asks first. Extensions may follow it, and are left alone; one that must be understood would come
/// before it, and there are none of that kind.
struct Challenge<'a> {
    nonce: &'a str,
    salt: Vec<u8>,
    rounds: u32,
}

impl<'a> Challenge<'a> {
    fn parse(message: &'a str) -> Option<Self> {
        let mut attributes = message.split(',');
        let nonce = attributes.next()?.strip_prefix("r=")?;
        let salt = attributes.next()?.strip_prefix("s=")?;
        let rounds = attributes.next()?.strip_prefix("i=")?;
        Some(Self {
            nonce,
            salt: STANDARD.decode(salt).ok()?,
            rounds: rounds.parse().ok()?,
        })
    }
}

/// A message of the server; it has only characters that can be seen.
fn text(message: &[u8]) -> Result<&str, String> {
    if message.len() > MOST_MESSAGE {
        return Err(format!("expected at most {MOST_MESSAGE} bytes, found more"));
    }
    let text = str::from_utf8(message).ok();
    let text = text.filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
    text.ok_or_else(|| "expected a message of SCRAM, found none".to_owned())
}

/// `Hi`: PBKDF2 for one block of output. `None` if there is no time for it.
fn salted(
    password: &[u8],
    salt: &[u8],
    rounds: u32,
    in_time: impl Fn() -> bool,
) -> Option<[u8; 32]> {
    let keyed = keyed(password);
    let first = keyed.clone().chain_update(salt).chain_update([0, 0, 0, 1]);
    let mut last: [u8; 32] = first.finalize().into_bytes().into();
    let mut all = last;
    for round in 1..rounds {
        if round % ROUNDS_AT_A_TIME == 0 && !in_time() {
            return None;
        }
        last = keyed
            .clone()
            .chain_update(last)
            .finalize()
            .into_bytes()
            .into();
        mix(&mut all, &last);
    }
    Some(all)
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn sign(key: &[u8; 32], text: &[u8]) -> [u8; 32] {
    keyed(key).chain_update(text).finalize().into_bytes().into()
}

fn mix(into: &mut [u8; 32], other: &[u8; 32]) {
    for (byte, other) in into.iter_mut().zip(other) {
        *byte ^= other;
    }
}

#[cfg(test)]
mod tests;
