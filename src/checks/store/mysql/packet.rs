//! MySQL's packets: three bytes of length, a number, a payload; and the fields of a payload.

/// A packet of that number.
pub(super) fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    // What is sent here is a few hundred bytes; a longer payload would have to be split.
    let length = u32::try_from(payload.len())
        .unwrap_or(u32::MAX)
        .to_le_bytes();
    [&length[..3], &[sequence], payload].concat()
}

/// The length of the payload that follows this header.
pub(super) fn length(header: &[u8]) -> Option<usize> {
    let [low, middle, high, _] = *header else {
        return None;
    };
    Some(u32::from_le_bytes([low, middle, high, 0]) as usize)
}

/// What is left of a payload; each method takes a field off its start, or gives `None` if it is too short.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(field)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|field| field[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.bytes(2)
            .map(|field| u16::from_le_bytes([field[0], field[1]]))
    }

    /// Text up to a NUL, which is taken off too.
    pub(super) fn until_nul(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let field = self.bytes(end);
        self.bytes(1);
        field
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }
}
