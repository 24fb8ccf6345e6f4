//! The replies that are kept, in a bounded amount of memory: the longest unused goes first.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;

use super::blocks::{Blocks, Spare};
use super::control::Directives;
use super::fields::Fields;
use super::freshness::Freshness;
use super::key::Key;
use super::vary::Vary;

/// What a reply takes beyond its key, fields and body: its node, its place in the map and its share of what the
/// allocator needs for eight blocks; by what becomes resident when many replies without a body are kept.
const OVERHEAD: usize = size_of::<Node>() + size_of::<Entry>() + 8 * 16 + 256;
/// Spare blocks may take this part of the capacity beyond it, so that they need not go while small bodies come between
/// large ones: the allocator would keep them for its own small things.
const SPARE_PART: usize = 32;
/// Most replies under one key. A client could otherwise choose the values of a field that a reply varies by, and each
/// look-up has to compare them all.
const MOST_VARIANTS: usize = 32;

/// One kept reply.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) status: u16,
    pub(super) fields: Fields,
    pub(super) body: Arc<Blocks>,
    pub(super) directives: Directives,
    pub(super) freshness: Freshness,
    pub(super) vary: Vary,
    /// What the request had for those names.
    pub(super) signature: Vec<u8>,
}

impl Entry {
    /// Whether it answers a request with these fields.
    pub(super) fn answers<'f>(
        &self,
        request: &(impl Iterator<Item = (&'f str, &'f [u8])> + Clone),
    ) -> bool {
        self.vary.signature(request) == self.signature
    }
}

struct Node {
    key: Key,
    entry: Arc<Entry>,
    cost: usize,
    newer: Option<usize>,
    older: Option<usize>,
}

/// Where a reply is, until something is kept or forgotten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found(usize);

pub(super) struct Store {
    capacity: usize,
    /// Blocks of what was forgotten. With what is kept and what is coming, they take little more than the capacity.
    spare: Arc<Spare>,
    /// Bytes of the replies that are kept, with their overhead.
    used: usize,
    /// Bytes set apart for replies that are still coming.
    reserved: usize,
    by_key: HashMap<Key, Vec<usize>>,
    nodes: Vec<Option<Node>>,
    free: Vec<usize>,
    newest: Option<usize>,
    oldest: Option<usize>,
}

impl Store {
    pub(super) fn new(capacity: usize) -> Self {
        let spare = Arc::new(Spare::default());
        spare.keep(capacity);
        Self {
            capacity,
            spare,
            used: 0,
            reserved: 0,
            by_key: HashMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            newest: None,
            oldest: None,
        }
    }

    /// The most that one reply may take: an eighth of all.
    pub(super) fn most_of_one(&self) -> usize {
        self.capacity / 8
    }

    pub(super) fn spare(&self) -> &Arc<Spare> {
        &self.spare
    }

    pub(super) fn used(&self) -> usize {
        self.used + self.reserved
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// The latest reply under this key that answers the request (RFC 9111 section 4.1), as the one used last.
    pub(super) fn find(&mut self, key: &Key, request: &Fields) -> Option<Arc<Entry>> {
        let kept = self.under(key.borrow());
        let answers = kept.filter(|(_, entry)| entry.answers(&request.iter()));
        let (found, entry) = answers.max_by_key(|(_, entry)| entry.freshness.date)?;
        let entry = Arc::clone(entry);
        self.touch(found);
        Some(entry)
    }

    /// All replies under the key with this text.
    pub(super) fn under(&self, key: &str) -> impl Iterator<Item = (Found, &Arc<Entry>)> + Clone {
        let indexes = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        let entry = |index| &self.node(index).entry;
        indexes
            .iter()
            .map(move |&index| (Found(index), entry(index)))
    }

    /// Makes it the one used last.
    pub(super) fn touch(&mut self, found: Found) {
        self.unlink(found.0);
        self.link_newest(found.0);
    }

    /// The names that the reply kept last under this key varies by.
    pub(super) fn vary(&self, key: &Key) -> Option<&Vary> {
        let index = self.by_key.get(key)?.last()?;
        Some(&self.node(*index).entry.vary)
    }

    /// Sets bytes apart for a reply that is still coming; replies that are kept make room. False if too much is set
    /// apart already.
    pub(super) fn reserve(&mut self, bytes: usize) -> bool {
        if self.reserved + bytes > self.capacity / 2 {
            return false;
        }
        self.reserved += bytes;
        self.make_room();
        true
    }

    pub(super) fn release(&mut self, bytes: usize) {
        self.reserved -= bytes;
    }

    /// Keeps a reply, in place of those that it replaces.
    pub(super) fn insert(&mut self, key: Key, mut entry: Entry) {
        let bytes = entry.fields.pack() + entry.body.cost() + entry.signature.capacity();
        let names = entry.vary.cost() + entry.directives.cost();
        let cost = key.len() + bytes + names + OVERHEAD;
        if cost > self.most_of_one() {
            return;
        }
        let alike = |index: &&usize| {
            let kept = &self.node(**index).entry;
            kept.vary == entry.vary && kept.signature == entry.signature
        };
        let indexes = self.by_key.get(&key).map_or(&[][..], Vec::as_slice);
        let crowded = indexes.first().filter(|_| indexes.len() >= MOST_VARIANTS);
        let replaced = indexes.iter().find(alike).or(crowded).copied();
        if let Some(index) = replaced {
            self.remove_node(index);
        }
        let node = Node {
            key: key.clone(),
            entry: Arc::new(entry),
            cost,
            newer: None,
            older: None,
        };
        let index = if let Some(index) = self.free.pop() {
            self.nodes[index] = Some(node);
            index
        } else {
            self.nodes.push(Some(node));
            self.nodes.len() - 1
        };
        self.by_key.entry(key).or_default().push(index);
        self.used += cost;
        self.link_newest(index);
        self.make_room();
    }

    /// Puts an entry in the place of one that may have gone meanwhile.
    pub(super) fn replace(&mut self, key: &Key, old: &Arc<Entry>, new: Entry) {
        if self.remove(key, old) {
            self.insert(key.clone(), new);
        }
    }

    /// Forgets this reply; false if it has gone already.
    pub(super) fn remove(&mut self, key: &Key, entry: &Arc<Entry>) -> bool {
        let indexes = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        let index = indexes
            .iter()
            .copied()
            .find(|&index| Arc::ptr_eq(&self.node(index).entry, entry));
        if let Some(index) = index {
            self.remove_node(index);
        }
        index.is_some()
    }

    /// Forgets all replies under this key; how many.
    pub(super) fn remove_all(&mut self, key: &Key) -> usize {
        let indexes = self.by_key.get(key).cloned().unwrap_or_default();
        for &index in &indexes {
            self.remove_node(index);
        }
        indexes.len()
    }

    fn make_room(&mut self) {
        while self.used + self.reserved > self.capacity
            && let Some(oldest) = self.oldest
        {
            self.remove_node(oldest);
        }
        self.keep_spare();
    }

    fn keep_spare(&self) {
        let left = self.capacity.saturating_sub(self.used + self.reserved);
        self.spare.keep(left + self.capacity / SPARE_PART);
    }

    fn remove_node(&mut self, index: usize) {
        self.unlink(index);
        let node = self.nodes[index].take().expect("a linked node is there");
        self.free.push(index);
        self.used -= node.cost;
        // Before its blocks come.
        self.keep_spare();
        if let Some(indexes) = self.by_key.get_mut(&node.key) {
            indexes.retain(|&kept| kept != index);
            if indexes.is_empty() {
                self.by_key.remove(&node.key);
            }
        }
    }

    fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().expect("a linked node is there")
    }

    fn node_mut(&mut self, index: usize) -> &mut Node {
        self.nodes[index].as_mut().expect("a linked node is there")
    }

    fn link_newest(&mut self, index: usize) {
        let before = self.newest.replace(index);
        let node = self.node_mut(index);
        node.newer = None;
        node.older = before;
        match before {
            None => self.oldest = Some(index),
            Some(before) => self.node_mut(before).newer = Some(index),
        }
    }

    fn unlink(&mut self, index: usize) {
        let Node { newer, older, .. } = *self.node(index);
        match newer {
            None => self.newest = older,
            Some(newer) => self.node_mut(newer).older = older,
        }
        match older {
            None => self.oldest = newer,
            Some(older) => self.node_mut(older).newer = newer,
        }
    }
}
