//! RSA with the server's public key: RSAES-OAEP with SHA-1 (RFC 8017, section 7.1.1), as `caching_sha2_password` wants it.
//!
//! Only encryption is needed, once a login, so the arithmetic is the plainest there is. It need not take the same time
//! for each message, since what it works on is padded with chance. The `rsa` crate does this too, and would make the
//! static binary larger by 119 KB.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

/// Bytes of a hash, and of the seed of the padding.
pub(super) const HASH: usize = 20;

/// Bytes of a modulus that is taken: a server makes keys of 256. More would take long, and be a server's whim.
const MODULUS: std::ops::RangeInclusive<usize> = 128..=512;

/// The tags of DER (X.690) that a key is made of.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const SEQUENCE: u8 = 0x30;

/// The identifier of RSA keys: 1.2.840.113549.1.1.1, and no parameters.
const RSA: &[u8] = &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];

#[derive(Debug)]
pub(super) struct PublicKey {
    modulus: Number,
    exponent: u32,
    /// Bytes of the modulus, and of what is encrypted.
    length: usize,
}

impl PublicKey {
    /// Reads a `SubjectPublicKeyInfo` (RFC 5280) in PEM.
    pub(super) fn from_pem(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text)
            .ok()?
            .trim_matches(['\0', '\r', '\n', ' ']);
        let text = text.strip_prefix("-----BEGIN PUBLIC KEY-----")?;
        let text = text.strip_suffix("-----END PUBLIC KEY-----")?;
        let text: String = text.split_ascii_whitespace().collect();
        let der = STANDARD.decode(text).ok()?;

        let mut key = element(&mut der.as_slice(), SEQUENCE)?;
        if element(&mut key, SEQUENCE)? != RSA {
            return None;
        }
        let mut bits = element(&mut key, BIT_STRING)?.strip_prefix(&[0])?;
        let mut numbers = element(&mut bits, SEQUENCE)?;
        let modulus = element(&mut numbers, INTEGER)?;
        let exponent = element(&mut numbers, INTEGER)?;
        Self::new(modulus, exponent)
    }

    fn new(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        // A positive number whose first bit is set has a zero before it.
        let modulus = modulus.strip_prefix(&[0]).unwrap_or(modulus);
        let exponent = exponent.strip_prefix(&[0]).unwrap_or(exponent);
        let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
        if !MODULUS.contains(&modulus.len()) || modulus[0] == 0 || !odd(modulus) || !odd(exponent) {
            return None;
        }
        let first = 4_usize.checked_sub(exponent.len())?;
        let mut bytes = [0; 4];
        bytes[first..].copy_from_slice(exponent);
        Some(Self {
            modulus: Number::from_bytes(modulus),
            exponent: u32::from_be_bytes(bytes),
            length: modulus.len(),
        })
    }

    /// Encrypts a message; `None` if it is too long for the key. The seed is chance, and another one each time.
    pub(super) fn encrypt(&self, message: &[u8], seed: [u8; HASH]) -> Option<Vec<u8>> {
        let zeros = self.length.checked_sub(2 * HASH + 2 + message.len())?;
        let mut block = Sha1::digest(b"").to_vec();
        block.resize(HASH + zeros, 0);
        block.push(1);
        block.extend(message);
        mask(&mut block, &seed);
        let mut seed = seed;
        mask(&mut seed, &block);
        // The zero makes it smaller than the modulus.
        let padded = [&[0][..], &seed, &block].concat();
        let sealed = Number::from_bytes(&padded).power(self.exponent, &self.modulus);
        Some(sealed.to_bytes(self.length))
    }
}

/// Takes an element of that tag off the start: its content.
fn element<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let rest = der.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *der = rest;
    Some(content)
}

/// Mixes a text with the mask that MGF1 (RFC 8017, appendix B.2.1) makes of a seed.
fn mask(text: &mut [u8], seed: &[u8]) {
    for (count, piece) in (0_u32..).zip(text.chunks_mut(HASH)) {
        let hash = Sha1::new()
            .chain_update(seed)
            .chain_update(count.to_be_bytes())
            .finalize();
        for (byte, mask) in piece.iter_mut().zip(hash) {
            *byte ^= mask;
        }
    }
}

/// A whole number: its digits to the base of 2^64, the lowest first. All that meet have as many digits as the modulus.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Number(Vec<u64>);

impl Number {
    /// From the highest byte to the lowest.
    fn from_bytes(bytes: &[u8]) -> Self {
        let digits = bytes.rchunks(8).map(|digit| {
            digit
                .iter()
                .fold(0, |digit, &byte| digit << 8 | u64::from(byte))
        });
        Self(digits.collect())
    }

    /// The lowest so many bytes.
    fn to_bytes(&self, length: usize) -> Vec<u8> {
        let bytes: Vec<_> = self
            .0
            .iter()
            .rev()
            .flat_map(|digit| digit.to_be_bytes())
            .collect();
        bytes[bytes.len() - length..].to_vec()
    }

    /// To the power of an exponent above 0, modulo `modulus`, than which it is smaller.
    fn power(&self, exponent: u32, modulus: &Self) -> Self {
        let mut result = self.clone();
        for bit in (0..exponent.ilog2()).rev() {
            result = result.times(&result, modulus);
            if exponent >> bit & 1 == 1 {
                result = result.times(self, modulus);
            }
        }
        result
    }

    /// Bit by bit, from the highest: double, and add.
    fn times(&self, other: &Self, modulus: &Self) -> Self {
        let mut product = Self(vec![0; modulus.0.len()]);
        for digit in self.0.iter().rev() {
            for bit in (0..u64::BITS).rev() {
                let same = product.clone();
                product.add(&same, modulus);
                if digit >> bit & 1 == 1 {
                    product.add(other, modulus);
                }
            }
        }
        product
    }

    fn add(&mut self, other: &Self, modulus: &Self) {
        let mut carry = false;
        for (digit, other) in self.0.iter_mut().zip(&other.0) {
            let (sum, first) = digit.overflowing_add(*other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*digit, carry) = (sum, first || second);
        }
        if carry || self.0.iter().rev().ge(modulus.0.iter().rev()) {
            self.subtract(modulus);
        }
    }

    /// What is above the highest digit is dropped.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (digit, other) in self.0.iter_mut().zip(&other.0) {
            let (rest, first) = digit.overflowing_sub(*other);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*digit, borrow) = (rest, first || second);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: Vec<_> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let digit = |digit: u8| char::from(digit).to_digit(16).expect("a digit");
        let byte =
            |pair: &[u8]| u8::try_from(digit(pair[0]) * 16 + digit(pair[1])).expect("a byte");
        hex.chunks(2).map(byte).collect()
    }

    /// The first example of RSA Laboratories' test vectors for RSAES-OAEP (`oaep-vect.txt`).
    #[test]
    fn a_known_message_is_encrypted_as_known() {
        let modulus = bytes(
            "a8b3b284af8eb50b387034a860f146c4919f318763cd6c5598c8ae4811a1e0abc4c7e0b082d693a5e7fced675cf4668512772c0cbc64a74
             2c6c630f533c8cc72f62ae833c40bf25842e984bb78bdbf97c0107d55bdb662f5c4e0fab9845cb5148ef7392dd3aaff93ae1e6b667bb3d4
             247616d4f5ba10d4cfd226de88d39f16fb",
        );
        let message = bytes("6628194e12073db03ba94cda9ef9532397d50dba79b987004afefe34");
        let seed = bytes("18b776ea21069d69776a33e96bad48e1dda0a5ef");
        let sealed = bytes(
            "354fe67b4a126d5d35fe36c777791a3f7ba13def484e2d3908aff722fad468fb21696de95d0be911c2d3174f8afcc201035f7b6d8e69402
             de5451618c21a535fa9d7bfc5b8dd9fc243f8cf927db31322d6e881eaa91a996170e657a05a266426d98c88003f8477c1227094a0d9fa1e
             8c4024309ce1ecccb5210035d47ac72e8a",
        );
        let key = PublicKey::new(&modulus, &[1, 0, 1]).expect("a key");
        let seed = seed.try_into().expect("as long as a hash");
        assert_eq!(key.encrypt(&message, seed), Some(sealed));
    }

    /// Of 2048 bits, made by `openssl genrsa`.
    const PEM: &str = "\
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAlR5djb1XmJ9GsBhvVtCv
Fzuq+VHTzg1PA7LiQ/yD9pq/Mhz0QqcOImKKld9s1FxMWC4xD5UQ+qM8F/Xlpusw
3jlNtLttyuqUqI4VVWSpHJPJYP7B3Xvjzs9SL6Yay7U+Rdq3aBbLpFLBRucwrTFV
OVLVW9WU9ymA8YZkrBhhZ6QI1kOATplT096VBRvYnlDmV+FL+8yRnSF/5UdYgp8Q
8QFs3G6vzzqFL3trEtRf63DREi7y2s+IkB2vGphtoOy5iJpQOatHMFNc76Qblyor
m6p0bynVfpEs5sbMwrzn13py0sCbHw/cYuuEDz/NQnddO5Z/S3UmXammMuriZzHc
3QIDAQAB
-----END PUBLIC KEY-----
";

    #[test]
    fn a_key_in_pem_is_read() {
        let key = PublicKey::from_pem(PEM.as_bytes()).expect("a key");
        assert_eq!((key.length, key.exponent), (256, 65_537));
        let longest = vec![b'x'; 256 - 42];
        assert_eq!(
            key.encrypt(&longest, [7; HASH]).map(|sealed| sealed.len()),
            Some(256)
        );
        assert_eq!(key.encrypt(&[b'x'; 256 - 41], [7; HASH]), None);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert!(PublicKey::from_pem(b"").is_none());
        assert!(
            PublicKey::from_pem(b"-----BEGIN PUBLIC KEY----------END PUBLIC KEY-----").is_none()
        );
        for end in 0..PEM.trim().len() {
            assert!(
                PublicKey::from_pem(&PEM.as_bytes()[..end]).is_none(),
                "{end}"
            );
        }
        let flat: String = PEM.lines().filter(|line| !line.starts_with('-')).collect();
        let der = STANDARD.decode(flat).expect("base64");
        for place in 0..der.len() {
            for change in [0, 1, 0x7f, 0x80, 0x82, 0xff] {
                let mut changed = der.clone();
                changed[place] = change;
                let text = STANDARD.encode(changed);
                let text =
                    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n");
                // Whatever it is now, it is read or refused.
                if let Some(key) = PublicKey::from_pem(text.as_bytes()) {
                    assert!(MODULUS.contains(&key.length) && key.exponent % 2 == 1);
                }
            }
        }
        for (modulus, exponent) in [
            (vec![0xff; 127], vec![3]),
            (vec![0xff; 513], vec![3]),
            (vec![0xfe; 128], vec![3]),
            (vec![0xff; 128], vec![2]),
            (vec![0xff; 128], vec![]),
            (vec![0xff; 128], vec![1, 0, 0, 0, 1]),
            (vec![], vec![3]),
        ] {
            assert!(PublicKey::new(&modulus, &exponent).is_none());
        }
    }

    #[test]
    fn powers_are_right_where_they_can_be_seen() {
        let number = |digits: &[u64]| Number(digits.to_vec());
        let modulus = number(&[u64::MAX, u64::MAX]);
        assert_eq!(number(&[3, 0]).power(5, &modulus), number(&[243, 0]));
        assert_eq!(
            number(&[1 << 63, 0]).power(2, &modulus),
            number(&[0, 1 << 62])
        );
        // 2^128 is one more than the modulus.
        assert_eq!(number(&[0, 1]).power(2, &modulus), number(&[1, 0]));
        assert_eq!(
            number(&[u64::MAX - 1, u64::MAX]).power(3, &modulus),
            number(&[u64::MAX - 1, u64::MAX])
        );
    }
}
