//! The last health report with all its details, which is given again while nothing happens but health requests.
//!
//! It takes three times as long to write as to send. A client that asks without end takes less of the one thread that
//! answers everybody, and no monitor can tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Answer, Page, prefers_text};
use crate::frontend::head::{Head, Method};
use crate::health::{Health, Mark};

/// How old a report may be: the clock shows in it too.
const FRESH: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(crate) struct Recent(Option<Report>);

#[derive(Debug)]
struct Report {
    at: Instant,
    mark: Mark,
    answer: Arc<Answer>,
}

impl Recent {
    /// The report, if it answers this request and is fresh.
    pub(crate) fn get(
        &self,
        page: Page,
        head: &Head,
        now: Instant,
        health: &Health,
    ) -> Option<Arc<Answer>> {
        let report = self.0.as_ref()?;
        let fresh = is_kept(page, head)
            && now.saturating_duration_since(report.at) < FRESH
            && health.mark() == report.mark;
        fresh.then(|| report.answer.clone())
    }

    /// Keeps the answer to this request, if it is such a report.
    pub(crate) fn keep(
        &mut self,
        page: Page,
        head: &Head,
        now: Instant,
        health: &Health,
        answer: &Arc<Answer>,
    ) {
        if is_kept(page, head) {
            self.0 = Some(Report {
                at: now,
                mark: health.mark(),
                answer: answer.clone(),
            });
        }
    }
}

/// Only the plain question of a monitor, to one who may see the details.
fn is_kept(page: Page, head: &Head) -> bool {
    page == Page::Health && head.method == Method::Get && !prefers_text(head.accept())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::head::{self, Progress};

    fn head(text: &str) -> Head {
        let parsed = head::parse(text.as_bytes(), 1024, &mut Progress::default());
        parsed.unwrap().unwrap().1
    }

    #[test]
    fn a_report_is_given_again_for_a_moment_and_not_once_anything_has_happened() {
        let start = Instant::now();
        let health = Health::of_a_new_server(start);
        let asked = head("GET /health HTTP/1.1\r\nHost: a\r\n\r\n");
        let answer = Arc::new(Page::Health.answer(&asked, true, &health));
        let mut recent = Recent::default();
        let again = |recent: &Recent, head: &Head, now| {
            let found = recent.get(Page::Health, head, now, &health);
            found.is_some_and(|found| Arc::ptr_eq(&found, &answer))
        };
        assert!(!again(&recent, &asked, start));
        recent.keep(Page::Health, &asked, start, &health, &answer);
        assert!(again(&recent, &asked, start));
        assert!(again(&recent, &asked, start + FRESH / 2));
        assert!(!again(&recent, &asked, start + FRESH));

        for other in [
            "HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS /health HTTP/1.0\r\n\r\n",
            "GET /health HTTP/1.1\r\nHost: a\r\nAccept: text/plain\r\n\r\n",
        ] {
            assert!(!again(&recent, &head(other), start), "{other}");
        }
        assert!(recent.get(Page::Ready, &asked, start, &health).is_none());

        health.ended(crate::health::Outcome::Bad);
        assert!(!again(&recent, &asked, start));
        recent.keep(Page::Health, &asked, start, &health, &answer);
        health.check_changed();
        assert!(!again(&recent, &asked, start));
        recent.keep(Page::Health, &asked, start, &health, &answer);
        health
            .gauges
            .draining
            .store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(!again(&recent, &asked, start));
    }
}
