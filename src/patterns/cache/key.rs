//! What a reply is kept under, and which other keys a reply can make invalid.

use std::borrow::Borrow;
use std::sync::Arc;

use super::fields::Fields;

/// A key: the whole URI, with nothing of the target changed, so that two targets which an origin may tell apart are two
/// keys. Only replies to GET are kept, so the method is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(Arc<str>);

/// Its text has the same hash, and is equal where it is.
impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Key {
    pub(super) fn new(https: bool, host: &str, target: &str) -> Self {
        Self(Self::text(https, host, target).into())
    }

    /// The text of a key, by which what is kept under it is found too.
    pub(super) fn text(https: bool, host: &str, target: &str) -> String {
        let scheme = if https { "https://" } else { "http://" };
        let mut key = String::with_capacity(scheme.len() + host.len() + 1 + target.len());
        key.push_str(scheme);
        key.push_str(usual_host(https, host));
        key.make_ascii_lowercase();
        // A target begins with a slash, or is an asterisk; a space can be in neither, nor in a host.
        key.push(' ');
        key.push_str(target);
        key
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn target(&self) -> &str {
        self.0.split_once(' ').map_or("", |(_, target)| target)
    }

    fn host(&self) -> &str {
        let (origin, _) = self.0.split_once(' ').unwrap_or_default();
        origin.split_once("://").map_or("", |(_, host)| host)
    }

    /// The key of a reference, resolved against this one, if it is of the same host: a reply can make invalid only
    /// what its own host has (RFC 9111 section 4.4). TLS may end before the cache, so the scheme need not be the same.
    pub(super) fn resolve(&self, reference: &str) -> Option<Self> {
        let reference = reference.split('#').next().unwrap_or_default();
        let https = self.0.starts_with("https:");
        if let Some((scheme, rest)) = reference.split_once("://")
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        {
            let secure = scheme.eq_ignore_ascii_case("https");
            if !secure && !scheme.eq_ignore_ascii_case("http") {
                return None;
            }
            return self.resolve_authority(secure, rest);
        }
        if let Some(rest) = reference.strip_prefix("//") {
            return self.resolve_authority(https, rest);
        }
        let path = self.target().split('?').next().unwrap_or_default();
        let target = if reference.is_empty() {
            self.target().to_owned()
        } else if reference.starts_with('/') {
            reference.to_owned()
        } else if reference.starts_with('?') {
            format!("{path}{reference}")
        } else {
            let directory = path.rfind('/').map_or("/", |slash| &path[..=slash]);
            format!("{directory}{reference}")
        };
        Some(Self::new(https, self.host(), &without_dots(&target)))
    }

    fn resolve_authority(&self, secure: bool, rest: &str) -> Option<Self> {
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, target) = rest.split_at(end);
        let target = if target.starts_with('/') {
            target.to_owned()
        } else {
            format!("/{target}")
        };
        let https = self.0.starts_with("https:");
        usual_host(secure, host)
            .eq_ignore_ascii_case(usual_host(https, self.host()))
            .then(|| Self::new(https, self.host(), &without_dots(&target)))
    }

    /// The keys that a successful reply to an unsafe method makes invalid (RFC 9111 section 4.4).
    pub(super) fn made_invalid(&self, reply: &Fields) -> Vec<Self> {
        let named = ["Location", "Content-Location"];
        let named = named.iter().filter_map(|name| reply.text(name));
        let mut keys = vec![self.clone()];
        keys.extend(named.filter_map(|reference| self.resolve(reference)));
        keys
    }
}

/// A host without its scheme's default port. Its case does not count.
fn usual_host(https: bool, host: &str) -> &str {
    let port = if https { ":443" } else { ":80" };
    let without = host.strip_suffix(port).or_else(|| host.strip_suffix(':'));
    without.unwrap_or(host)
}

/// A target whose path has no dot segments (RFC 3986 section 5.2.4).
fn without_dots(target: &str) -> String {
    let (path, query) = match target.find('?') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    let mut segments = Vec::new();
    let mut rest = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(segment) = rest.next() {
        let is_last = rest.peek().is_none();
        match segment {
            "." => {}
            ".." => _ = segments.pop(),
            _ => segments.push(segment),
        }
        if is_last && matches!(segment, "." | "..") {
            segments.push("");
        }
    }
    format!("/{}{query}", segments.join("/"))
}
