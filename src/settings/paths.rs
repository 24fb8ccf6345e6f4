//! Where the server's own pages are, as settings.

use super::kinds::{Complaint, Kind};
use super::{Config, ConfigError};

/// A path that a page has, or none.
pub(super) struct Path;

impl Kind for Path {
    type Value = Option<String>;

    fn placeholder(&self) -> &'static str {
        "PATH"
    }

    fn expected(&self) -> String {
        "a path that begins with a slash, such as /health, or off".to_owned()
    }

    fn parse(&self, text: &str) -> Result<Self::Value, Complaint> {
        Ok((text != OFF).then(|| text.to_owned()))
    }

    fn show(&self, value: &Self::Value) -> String {
        value.as_deref().unwrap_or(OFF).to_owned()
    }

    fn check(&self, value: &Self::Value) -> Result<(), Complaint> {
        match value {
            Some(path) if !is_path(path) => {
                Err(Complaint::found(self.expected(), format!("{path:?}")))
            }
            _ => Ok(()),
        }
    }
}

const OFF: &str = "off";

/// Whether requests can have that path: visible ASCII, up to a query or a fragment.
fn is_path(text: &str) -> bool {
    let in_path = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    text.starts_with('/') && text.bytes().all(in_path)
}

/// Checks that no path has two pages.
pub(super) fn all_differ(config: &Config) -> Result<(), ConfigError> {
    let below = |path: &str, name: &str| format!("{}{name}", path.trim_end_matches('/'));
    let pages = [
        ("health-path", &config.health_path, Some("/consul")),
        ("livez-path", &config.livez_path, None),
        ("readyz-path", &config.readyz_path, None),
        ("metrics-path", &config.metrics_path, None),
        ("status-path", &config.status_path, Some(".json")),
    ];
    let mut taken: Vec<(&str, String)> = Vec::new();
    for (option, path, behind) in pages {
        let Some(path) = path else { continue };
        let also = behind.map(|name| below(path, name));
        for path in [Some(path.clone()), also].into_iter().flatten() {
            if let Some((other, _)) = taken.iter().find(|(_, other)| *other == path) {
                return Err(ConfigError {
                    option,
                    expected: "a path of its own".to_owned(),
                    found: format!("{path:?}, which {other} has"),
                });
            }
            taken.push((option, path));
        }
    }
    Ok(())
}
