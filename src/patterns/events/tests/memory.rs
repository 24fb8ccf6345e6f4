//! A directory in memory, whose operations can be made to fail, and which can lose power.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::panics::lock;
use crate::patterns::events::files::{Directory, File};
use crate::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Create,
    Write,
    Sync,
    Read,
    Rename,
    Remove,
    SyncNames,
}

type Fault = Box<dyn FnMut(Op, &str) -> Option<ErrorKind> + Send>;

#[derive(Default)]
pub(super) struct Memory {
    names: Mutex<Names>,
    shared: Arc<Faults>,
}

#[derive(Default)]
struct Names {
    now: HashMap<String, Arc<MemoryFile>>,
    durable: HashMap<String, Arc<MemoryFile>>,
}

#[derive(Default)]
struct Faults {
    /// Operations share it; a power cut has it alone, so that it comes at one moment for all files.
    power: RwLock<()>,
    fault: Mutex<Option<Fault>>,
    syncs: AtomicU64,
}

impl Faults {
    /// What an operation holds until it is done.
    fn pass(&self, op: Op, name: &str) -> io::Result<RwLockReadGuard<'_, ()>> {
        let mut fault = lock(&self.fault);
        match fault.as_mut().and_then(|fault| fault(op, name)) {
            Some(kind) => Err(kind.into()),
            None => Ok(self.power.read().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn cut(&self) -> RwLockWriteGuard<'_, ()> {
        self.power.write().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct MemoryFile {
    name: Mutex<String>,
    content: Mutex<Content>,
    shared: Arc<Faults>,
}

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: Vec<Range<usize>>,
}

impl Memory {
    /// What every operation is asked first.
    pub(super) fn fail(&self, fault: impl FnMut(Op, &str) -> Option<ErrorKind> + Send + 'static) {
        *lock(&self.shared.fault) = Some(Box::new(fault));
    }

    pub(super) fn heal(&self) {
        *lock(&self.shared.fault) = None;
    }

    /// How often a file was synced.
    pub(super) fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }

    /// What a power cut leaves: what is durable, and of the rest some blocks. Of each file name the durable one.
    pub(super) fn cut_power(&self, random: &mut Random) -> Self {
        let after = Self::default();
        let _cut = self.shared.cut();
        for (name, file) in &lock(&self.names).durable {
            let mut content = lock(&file.content).clone();
            for dirty in std::mem::take(&mut content.dirty) {
                for start in dirty.clone().step_by(4096) {
                    let block = start..dirty.end.min(start + 4096);
                    if random.uniform() < 0.5 {
                        if content.durable.len() < block.end {
                            content.durable.resize(block.end, 0);
                        }
                        let written = &content.now[block.clone()];
                        content.durable[block].copy_from_slice(written);
                    }
                }
            }
            after.put(name, &content.durable);
        }
        after
    }

    /// The files and their contents, as a program sees them.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let names = lock(&self.names);
        let files = names.now.iter();
        let mut files: Vec<_> = files
            .map(|(name, file)| (name.clone(), lock(&file.content).now.clone()))
            .collect();
        files.sort();
        files
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        let names = lock(&self.names);
        let files = names.now.values();
        files.map(|file| lock(&file.content).now.len() as u64).sum()
    }

    /// Flips a bit.
    pub(super) fn damage(&self, name: &str, at: usize) {
        let file = Arc::clone(&lock(&self.names).now[name]);
        lock(&file.content).now[at] ^= 1;
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        let file = Arc::new(MemoryFile {
            name: Mutex::new(name.to_owned()),
            content: Mutex::new(Content {
                now: bytes.to_vec(),
                durable: bytes.to_vec(),
                dirty: Vec::new(),
            }),
            shared: Arc::clone(&self.shared),
        });
        let mut names = lock(&self.names);
        names.now.insert(name.to_owned(), Arc::clone(&file));
        names.durable.insert(name.to_owned(), file);
    }
}

impl Directory for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.names).now.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let _power = self.shared.pass(Op::Create, name)?;
        let file = Arc::new(MemoryFile {
            name: Mutex::new(name.to_owned()),
            content: Mutex::default(),
            shared: Arc::clone(&self.shared),
        });
        lock(&self.names)
            .now
            .insert(name.to_owned(), Arc::clone(&file));
        Ok(Arc::new(Handle(file)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let names = lock(&self.names);
        let file = names.now.get(name).ok_or(ErrorKind::NotFound)?;
        Ok(Arc::new(Handle(Arc::clone(file))))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let _power = self.shared.pass(Op::Rename, from)?;
        let mut names = lock(&self.names);
        let file = names.now.remove(from).ok_or(ErrorKind::NotFound)?;
        to.clone_into(&mut lock(&file.name));
        names.now.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let _power = self.shared.pass(Op::Remove, name)?;
        let removed = lock(&self.names).now.remove(name);
        removed.map(drop).ok_or(ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        let _power = self.shared.pass(Op::SyncNames, "")?;
        let mut names = lock(&self.names);
        names.durable = names.now.clone();
        Ok(())
    }
}

/// An open file: who has it open counts as on a disk, where the directory does not.
struct Handle(Arc<MemoryFile>);

impl File for Handle {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.0.content).now.len() as u64)
    }
}

impl MemoryFile {
    /// The name is not locked meanwhile: what cuts the power waits for who renames the file.
    fn pass(&self, op: Op) -> io::Result<RwLockReadGuard<'_, ()>> {
        let name = lock(&self.name).clone();
        self.shared.pass(op, &name)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let _power = self.pass(Op::Read)?;
        let content = lock(&self.content);
        let offset = usize::try_from(offset).unwrap().min(content.now.len());
        let count = buffer.len().min(content.now.len() - offset);
        buffer[..count].copy_from_slice(&content.now[offset..offset + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let _power = self.pass(Op::Write)?;
        let mut content = lock(&self.content);
        let range =
            usize::try_from(offset).unwrap()..usize::try_from(offset).unwrap() + bytes.len();
        if content.now.len() < range.end {
            content.now.resize(range.end, 0);
        }
        content.now[range.clone()].copy_from_slice(bytes);
        content.dirty.push(range);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        let result = self.pass(Op::Sync);
        let mut content = lock(&self.content);
        // As Linux does: after an error the pages count as clean.
        let dirty = std::mem::take(&mut content.dirty);
        if result.is_ok() {
            let length = content.now.len();
            content.durable.resize(length, 0);
            for range in dirty {
                let Content { now, durable, .. } = &mut *content;
                durable[range.clone()].copy_from_slice(&now[range]);
            }
        }
        result.map(drop)
    }
}
