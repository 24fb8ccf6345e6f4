//! A segment: a file that is made full of zeros, or was a segment that is not needed any more, and is then written once
//! from its beginning to its end.

use std::io;
use std::sync::Arc;

use super::files::{Directory, File, UNFINISHED};
use super::reader::{Reader, Source};
use super::record::{BLOCK, BadHeader, FIRST, HEAD, Header, Purpose, RecordHead, to_usize};

/// What is written at once when a segment is filled with zeros.
const PIECE: usize = 256 * 1024;

/// A file whose segment is not needed any more, and which bears no segment's name. The next segment is made of it: to
/// fill another with zeros would be as much work for the disk as all that is then written to it.
pub(crate) struct Spare {
    file: Arc<dyn File>,
    header: Header,
    name: String,
}

impl Spare {
    /// Gives the file of a segment another name, which a start takes for unfinished; that is durable once the directory
    /// has been synced. `None` for a file that cannot be used again, and keeps its name.
    pub(crate) fn set_aside(
        directory: &dyn Directory,
        file: Arc<dyn File>,
        header: Header,
    ) -> io::Result<Option<Self>> {
        if file.length()? != header.size {
            return Ok(None);
        }
        let old = name(header.purpose, header.number);
        let name = unfinished(&old);
        directory.rename(&old, &name)?;
        Ok(Some(Self { file, header, name }))
    }

    /// What its file is called.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// A segment's file, and where in it the next commit goes.
pub(crate) struct Segment {
    pub(crate) file: Arc<dyn File>,
    pub(crate) header: Header,
    /// Where the next commit begins: a multiple of the block size.
    pub(crate) position: u64,
}

impl Segment {
    /// A new one. It bears its name only once it is whole and durable.
    pub(crate) fn create(
        directory: &dyn Directory,
        purpose: Purpose,
        number: u32,
        size: u64,
    ) -> io::Result<Self> {
        let header = Header {
            purpose,
            number,
            salt: random_salt()?,
            uses: 0,
            size,
        };
        let unfinished = unfinished(&name(purpose, number));
        let made = Self::fill(directory, &unfinished, &header);
        Self::made(directory, &unfinished, header, made)
    }

    /// A new one in a file that is not needed any more. `None` if that cannot be used, as somebody reads it still; it is
    /// removed then.
    pub(crate) fn reuse(
        directory: &dyn Directory,
        spare: Spare,
        number: u32,
    ) -> io::Result<Option<Self>> {
        let Spare { file, header, name } = spare;
        let unread = Arc::strong_count(&file) == 1;
        let Some(header) = header.again(number).filter(|_| unread) else {
            directory.remove(&name)?;
            return Ok(None);
        };
        let made = Self::begin(directory, file, &name, &header);
        Self::made(directory, &name, header, made).map(Some)
    }

    fn made(
        directory: &dyn Directory,
        unfinished: &str,
        header: Header,
        file: io::Result<Arc<dyn File>>,
    ) -> io::Result<Self> {
        if file.is_err() {
            // The space that it took may be what is missing. What cannot be removed is found at the next start.
            let _ = directory.remove(unfinished);
            let _ = directory.remove(&name(header.purpose, header.number));
        }
        Ok(Self {
            file: file?,
            header,
            position: FIRST,
        })
    }

    /// The header, and zeros to say that nothing follows it yet.
    fn begin(
        directory: &dyn Directory,
        file: Arc<dyn File>,
        unfinished: &str,
        header: &Header,
    ) -> io::Result<Arc<dyn File>> {
        let mut start = header.encode();
        start.resize(2 * to_usize(BLOCK), 0);
        file.write_at(&start, 0)?;
        file.sync()?;
        directory.rename(unfinished, &name(header.purpose, header.number))?;
        directory.sync()?;
        Ok(file)
    }

    /// Real zeros: what is only allocated would have its metadata written at each commit.
    fn fill(
        directory: &dyn Directory,
        unfinished: &str,
        header: &Header,
    ) -> io::Result<Arc<dyn File>> {
        let file = directory.create(unfinished)?;
        file.write_at(&header.encode(), 0)?;
        let zeros = vec![0; PIECE];
        let mut filled = FIRST;
        while filled < header.size {
            let piece = (header.size - filled).min(PIECE as u64);
            file.write_at(&zeros[..to_usize(piece)], filled)?;
            filled += piece;
        }
        file.sync()?;
        directory.rename(unfinished, &name(header.purpose, header.number))?;
        directory.sync()?;
        Ok(file)
    }

    /// One that is there; its position is known once it has been read. What is wrong with its header is the inner error.
    pub(crate) fn open(
        directory: &dyn Directory,
        purpose: Purpose,
        number: u32,
    ) -> io::Result<Result<Self, BadHeader>> {
        let file = directory.open(&name(purpose, number))?;
        let mut block = vec![0; to_usize(BLOCK)];
        let count = file.read_at(&mut block, 0)?;
        let header = match Header::decode(&block[..count]) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        if (header.purpose, header.number) != (purpose, number) {
            return Ok(Err(BadHeader::Damaged));
        }
        Ok(Ok(Self {
            file,
            header,
            position: header.size,
        }))
    }

    /// Bytes that a commit may still take.
    pub(crate) fn room(&self) -> u64 {
        self.header.size - self.position
    }

    /// Writes a commit and makes it durable. `commit` is filled up to whole blocks, and where another segment's bytes
    /// follow, by one of zeros that the next commit goes over.
    ///
    /// After an error nothing is known about these bytes, and no later sync of this file can be believed: Linux reports
    /// a failed write-back once and then takes the pages for clean. The caller writes to another segment.
    pub(crate) fn commit(&mut self, commit: &mut Vec<u8>) -> io::Result<()> {
        commit.resize(commit.len().next_multiple_of(to_usize(BLOCK)), 0);
        let bytes = commit.len() as u64;
        debug_assert!(bytes <= self.room());
        if self.header.uses > 0 && bytes < self.room() {
            commit.resize(commit.len() + to_usize(BLOCK), 0);
        }
        self.file.write_at(commit, self.position)?;
        self.file.sync()?;
        self.position += bytes;
        Ok(())
    }

    /// Makes the segment ready for commits after `reader` has read all of it: what a crash left behind the last record
    /// becomes zeros again. A file that is not as long as it was made takes no more commits.
    pub(crate) fn resume<S: Source + ?Sized>(
        &mut self,
        reader: &Reader<'_, S>,
        length: u64,
    ) -> io::Result<()> {
        let free = reader.free();
        if length != self.header.size || free >= self.header.size {
            return Ok(());
        }
        let mut at = free;
        let zeros = vec![0; PIECE];
        while at < reader.dirty() {
            let dirty = reader.dirty().next_multiple_of(BLOCK) - at;
            let piece = dirty.min(PIECE as u64);
            self.file.write_at(&zeros[..to_usize(piece)], at)?;
            at += piece;
        }
        // What a killed process wrote may not be durable yet, and from now on it counts as kept.
        self.file.sync()?;
        self.position = free;
        Ok(())
    }
}

/// Reads one record's body. `None` if it is damaged.
pub(crate) fn read_record(
    file: &dyn File,
    salt: u64,
    offset: u64,
    length: u32,
) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; HEAD + length as usize];
    let count = file.read_at(&mut bytes, offset)?;
    bytes.truncate(count);
    let Some(head) = RecordHead::decode(&bytes, salt, offset) else {
        return Ok(None);
    };
    if !head.fits(salt, offset, &bytes[HEAD..]) {
        return Ok(None);
    }
    bytes.drain(..HEAD);
    Ok(Some(bytes))
}

/// The name of a segment's file.
pub(crate) fn name(purpose: Purpose, number: u32) -> String {
    format!("{number:010}.{}", purpose.extension())
}

/// The name of a file that is to become one of this name, or that was one.
pub(crate) fn unfinished(name: &str) -> String {
    format!("{UNFINISHED}{name}")
}

/// The numbers of all segments of a kind, in order. Of those that a file cannot have there is none.
pub(crate) fn numbers(names: &[String], purpose: Purpose) -> Vec<u32> {
    let mut numbers: Vec<u32> = names
        .iter()
        .filter_map(|file| {
            let (number, extension) = file.split_once('.')?;
            let number = number.parse().ok()?;
            let possible = (1..u32::MAX).contains(&number);
            let is_name = extension == purpose.extension() && name(purpose, number) == *file;
            (possible && is_name).then_some(number)
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

fn random_salt() -> io::Result<u64> {
    getrandom::u64().map_err(io::Error::other)
}
