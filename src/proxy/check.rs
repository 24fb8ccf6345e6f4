//! Asks endpoints in the background how they are: `--upstream-check PATH[,interval=2s][,timeout=1s][,fall=3][,rise=2]`.
//!
//! When to ask, and when enough has been heard, is decided by the same machine that monitors data stores.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;

use crate::checks::scheduler::{self, MonitoredCheck};
use crate::checks::store::get::{Get, WELL};
use crate::checks::{Check, CheckError, CheckSettings, CheckState, Monitored};
use crate::net::stream::{Address, Socket};
use crate::patterns::Deadline;
use crate::random::{self, Random};
use crate::settings::checks::{judge_settings, push_settings, read};
use crate::settings::{Complaint, Kind};
use crate::threads::Threads;

/// Most checks that run at the same time.
const SIDE_BY_SIDE: usize = 16;

/// What endpoints are asked in the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamCheck {
    /// What is asked: the path and query of a GET, behind the endpoint's prefix. A status from 200 to 399 is right.
    pub path: String,
    /// How often, and how many failures or successes in a row count. Default: every 2 s, for 1 s at most; 3 and 2.
    pub settings: CheckSettings,
}

impl UpstreamCheck {
    fn defaults() -> CheckSettings {
        CheckSettings {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            ..CheckSettings::default()
        }
    }
}

const EXPECTED: &str =
    "off, or a path such as /health, perhaps with ,interval=DUR ,timeout=DUR ,fall=N or ,rise=N";

/// How a check is written.
pub(super) struct CheckKind;

impl Kind for CheckKind {
    type Value = Option<UpstreamCheck>;

    fn placeholder(&self) -> &'static str {
        "PATH"
    }

    fn expected(&self) -> String {
        EXPECTED.to_owned()
    }

    fn parse(&self, text: &str) -> Result<Self::Value, Complaint> {
        if text == "off" {
            return Ok(None);
        }
        let mut words = text.split(',');
        let path = words.next().unwrap_or_default().to_owned();
        let mut settings = UpstreamCheck::defaults();
        for word in words {
            let is_known = word != "critical" && read(&mut settings, "the check", word).is_ok();
            is_known.then_some(()).ok_or_else(|| self.complaint())?;
        }
        let check = Some(UpstreamCheck { path, settings });
        self.check(&check)?;
        Ok(check)
    }

    fn show(&self, value: &Self::Value) -> String {
        let Some(UpstreamCheck { path, settings }) = value else {
            return String::new();
        };
        let mut text = path.clone();
        push_settings(&mut text, settings, &UpstreamCheck::defaults());
        text
    }

    fn check(&self, value: &Self::Value) -> Result<(), Complaint> {
        let Some(UpstreamCheck { path, settings }) = value else {
            return Ok(());
        };
        let is_visible = path
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#');
        if !path.starts_with('/') || !is_visible {
            return Err(self.complaint());
        }
        judge_settings("the check", settings)
    }
}

/// What is asked of one endpoint.
#[derive(Debug)]
struct Probe {
    address: Address,
    get: Get,
}

impl Check for Probe {
    fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        let deadline = Deadline::at(deadline);
        let socket = Socket::connect(&self.address, deadline)?;
        self.get.ask(socket, deadline, &WELL).map(drop)
    }
}

/// An endpoint that is asked.
#[derive(Clone)]
pub(super) struct Checked {
    probe: Arc<Probe>,
    monitored: Arc<Monitored>,
}

/// What its checks say of an endpoint.
pub(super) enum Verdict {
    /// It is well, or nothing is known yet.
    Good,
    /// It answers with the wrong status.
    Wrong(Arc<str>),
    /// It does not answer.
    Silent(Arc<str>),
}

impl Checked {
    /// One that has not been asked yet.
    pub(super) fn new(
        check: &UpstreamCheck,
        name: &str,
        address: &Address,
        host: &str,
        prefix: &str,
    ) -> Self {
        let mut random = Random::new(random::seed());
        let target = format!("{prefix}{}", check.path);
        let probe = Probe {
            address: address.clone(),
            get: Get::new(&target, host, "*/*"),
        };
        let settings = check.settings.clone();
        Self {
            probe: Arc::new(probe),
            monitored: Arc::new(Monitored::new(name, settings, Instant::now(), &mut random)),
        }
    }

    /// What its checks say.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let report = self.monitored.report(now);
        if report.state != CheckState::Down {
            return Verdict::Good;
        }
        let error = report
            .error
            .unwrap_or_else(|| "not heard of for too long".into());
        if self.monitored.has_answered() {
            Verdict::Wrong(error)
        } else {
            Verdict::Silent(error)
        }
    }

    /// How it is asked in the background.
    pub(super) fn monitored_check(&self) -> MonitoredCheck {
        MonitoredCheck {
            monitored: self.monitored.clone(),
            check: self.probe.clone(),
        }
    }

    /// Whether the endpoint answers now, be it with the wrong status.
    pub(super) fn ask(&self, deadline: Instant) -> bool {
        let result = self.probe.check(deadline);
        result.map_or_else(|error| error.is_answer(), |()| true)
    }
}

impl fmt::Debug for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked")
            .field("probe", &self.probe)
            .finish_non_exhaustive()
    }
}

/// Starts the thread that asks the endpoints of the set that it was sent last.
pub(super) fn spawn(threads: &mut Threads) -> io::Result<Sender<Vec<MonitoredCheck>>> {
    scheduler::spawn_for_sets(SIDE_BY_SIDE, threads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_and_shown() {
        for text in [
            "/",
            "/health?full",
            "/h,interval=500ms,timeout=70ms,fall=1,rise=9",
        ] {
            let check = CheckKind.parse(text).expect("a check");
            assert_eq!(CheckKind.show(&check), text);
        }
        let check = CheckKind.parse("/h,interval=2s,fall=3").expect("a check");
        assert_eq!(CheckKind.show(&check), "/h", "the defaults are not shown");
        assert_eq!(CheckKind.parse("off"), Ok(None));
        for bad in [
            "",
            "health",
            "/a b",
            "/a#b",
            "/h,",
            "/h,critical",
            "/h,fall=x",
            "/h,fall=0",
            "/h,interval=0",
            "/h\n",
        ] {
            assert!(CheckKind.parse(bad).is_err(), "{bad:?}");
        }
    }
}
