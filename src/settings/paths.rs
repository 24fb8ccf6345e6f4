//! Where the server's own pages are, as settings.

use super::kinds::{Complaint, Kind};
use super::{Config, ConfigError, OwnPaths};

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

/// The pages that a configuration has: the option by which each is moved, and its path.
fn pages(config: &Config) -> Vec<(&'static str, String)> {
    let pages = [
        ("health-path", &config.health_path, Some("/consul")),
        ("livez-path", &config.livez_path, None),
        ("readyz-path", &config.readyz_path, None),
        ("metrics-path", &config.metrics_path, None),
        ("status-path", &config.status_path, Some(".json")),
    ];
    let mut all = Vec::new();
    for (option, path, behind) in pages {
        let Some(path) = path else { continue };
        all.push((option, path.clone()));
        all.extend(behind.map(|name| (option, format!("{}{name}", path.trim_end_matches('/')))));
    }
    all
}

/// The paths that the public listener answers itself, so that no handler sees them.
#[must_use]
pub fn own_public_paths(config: &Config) -> Vec<String> {
    let stays = |option: &str| match config.own_paths {
        OwnPaths::All => true,
        OwnPaths::Admin => matches!(option, "livez-path" | "readyz-path"),
    };
    let pages = pages(config).into_iter();
    let public = pages.filter(|(option, _)| stays(option));
    public.map(|(_, path)| path).collect()
}

/// Checks that no path has two pages.
pub(super) fn all_differ(config: &Config) -> Result<(), ConfigError> {
    let pages = pages(config);
    for (index, (option, path)) in pages.iter().enumerate() {
        let mut before = pages[..index].iter();
        if let Some((other, _)) = before.find(|(_, other)| other == path) {
            return Err(ConfigError {
                option,
                expected: "a path of its own".to_owned(),
                found: format!("{path:?}, which {other} has"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_paths_are_those_that_are_on_and_not_left_to_the_admin_listener() {
        let mut config = Config {
            livez_path: None,
            status_path: Some("/hull".to_owned()),
            ..Config::default()
        };
        assert_eq!(
            own_public_paths(&config),
            [
                "/health",
                "/health/consul",
                "/readyz",
                "/metrics",
                "/hull",
                "/hull.json"
            ]
        );
        config.own_paths = OwnPaths::Admin;
        assert_eq!(own_public_paths(&config), ["/readyz"]);
    }
}
