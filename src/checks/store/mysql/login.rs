//! A MySQL login's packets, and what its plugins make of a password and the server's nonce.

use sha1::{Digest, Sha1};
use sha2::Sha256;

use super::packet::Fields;

/// Bytes of a nonce.
pub(super) const NONCE: usize = 20;

/// What a server can and a client wants: the bits of `CLIENT_*`.
const LONG_PASSWORD: u32 = 1;
const CONNECT_WITH_DB: u32 = 1 << 3;
const PROTOCOL_41: u32 = 1 << 9;
const TRANSACTIONS: u32 = 1 << 13;
const SECURE_CONNECTION: u32 = 1 << 15;
const PLUGIN_AUTH: u32 = 1 << 19;

/// `utf8mb4_general_ci`.
const CHARACTER_SET: u8 = 45;

/// Longest packet that the server may send; it never comes near.
const MOST_PACKET: u32 = 1 << 24;

/// How a password is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plugin {
    Native,
    CachingSha2,
}

impl Plugin {
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        [Self::Native, Self::CachingSha2]
            .into_iter()
            .find(|plugin| plugin.name().as_bytes() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Native => "mysql_native_password",
            Self::CachingSha2 => "caching_sha2_password",
        }
    }

    /// The proof that the client knows the password; without one it is empty.
    pub(super) fn scramble(self, password: &str, nonce: &[u8; NONCE]) -> Vec<u8> {
        let password = password.as_bytes();
        if password.is_empty() {
            return Vec::new();
        }
        match self {
            // SHA1(password) XOR SHA1(nonce, SHA1(SHA1(password)))
            Self::Native => {
                let once = Sha1::digest(password);
                let twice = Sha1::digest(once);
                let mask = Sha1::new()
                    .chain_update(nonce)
                    .chain_update(twice)
                    .finalize();
                xor(&once, &mask)
            }
            // SHA256(password) XOR SHA256(SHA256(SHA256(password)), nonce)
            Self::CachingSha2 => {
                let once = Sha256::digest(password);
                let twice = Sha256::digest(once);
                let mask = Sha256::new()
                    .chain_update(twice)
                    .chain_update(nonce)
                    .finalize();
                xor(&once, &mask)
            }
        }
    }
}

/// The password as it is encrypted: with its NUL, and mixed with the nonce.
pub(super) fn hide(password: &str, nonce: &[u8; NONCE]) -> Vec<u8> {
    let hidden = password.bytes().chain([0]);
    hidden
        .zip(nonce.iter().cycle())
        .map(|(byte, mask)| byte ^ mask)
        .collect()
}

/// Of two texts of the same length.
fn xor(left: &[u8], right: &[u8]) -> Vec<u8> {
    left.iter()
        .zip(right)
        .map(|(left, right)| left ^ right)
        .collect()
}

/// What a server says first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) nonce: [u8; NONCE],
    /// The server's default one.
    pub(super) plugin: Vec<u8>,
}

impl Greeting {
    /// Reads a packet of `HandshakeV10`; `None` if it is none, or if the server is of before version 4.1.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let mut fields = Fields(packet);
        if fields.u8()? != 10 {
            return None;
        }
        let _version = fields.until_nul()?;
        let _thread = fields.bytes(4)?;
        let start = fields.bytes(8)?;
        let _filler = fields.u8()?;
        let low = fields.u16()?;
        let _character_set = fields.u8()?;
        let _status = fields.u16()?;
        let high = fields.u16()?;
        let capabilities = u32::from(high) << 16 | u32::from(low);
        if capabilities & PROTOCOL_41 == 0 || capabilities & SECURE_CONNECTION == 0 {
            return None;
        }
        let _nonce_length = fields.u8()?;
        let _reserved = fields.bytes(10)?;
        // The length is that of the start, of this and of a NUL; no server sends another than 21.
        let end = fields.bytes(NONCE + 1 - 8)?;
        let plugin = if capabilities & PLUGIN_AUTH == 0 {
            Plugin::Native.name().as_bytes()
        } else {
            // Some servers leave the NUL out.
            fields.until_nul().unwrap_or(fields.0)
        };
        Some(Self {
            nonce: nonce(&[start, end].concat())?,
            plugin: plugin.to_vec(),
        })
    }
}

/// A nonce, with or without its NUL.
pub(super) fn nonce(data: &[u8]) -> Option<[u8; NONCE]> {
    data.strip_suffix(&[0]).unwrap_or(data).try_into().ok()
}

/// A packet of `HandshakeResponse41`. `scramble` is at most 32 bytes long.
pub(super) fn response(
    user: &str,
    plugin: Plugin,
    scramble: &[u8],
    database: Option<&str>,
) -> Vec<u8> {
    let mut capabilities =
        LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;
    if database.is_some() {
        capabilities |= CONNECT_WITH_DB;
    }
    let mut packet = Vec::new();
    packet.extend(capabilities.to_le_bytes());
    packet.extend(MOST_PACKET.to_le_bytes());
    packet.push(CHARACTER_SET);
    packet.extend([0; 23]);
    packet.extend(user.bytes());
    packet.push(0);
    packet.extend(u8::try_from(scramble.len()));
    packet.extend(scramble);
    if let Some(database) = database {
        packet.extend(database.bytes());
        packet.push(0);
    }
    packet.extend(plugin.name().bytes());
    packet.push(0);
    packet
}
