//! What must hold, and whether it does.

use super::literal::Literal;
use super::phase::Phase;
use super::stall::Stall;
use super::{BUDGET, COOLDOWN, SLACK, milliseconds, percent};

const PASS: &str = "PASS";

/// The verdicts.
#[derive(Default)]
pub(super) struct Figures {
    pub(super) rows: Vec<Vec<String>>,
}

impl Figures {
    pub(super) fn tally(&self) -> String {
        let passed = self.rows.iter().filter(|row| row[1] == PASS).count();
        format!("{passed} of {} pass", self.rows.len())
    }

    fn judge(&mut self, figure: &str, passes: bool, found: String) {
        let verdict = if passes { PASS } else { "FALLS SHORT" };
        self.rows
            .push(vec![figure.to_owned(), verdict.to_owned(), found]);
    }

    pub(super) fn judge_steady(&mut self, phases: &[Phase], trips: u64) {
        for phase in phases.iter().filter(|phase| phase.multiple < 1.0) {
            let what = format!("1. at {}: sheds at most 0.1 %", phase.name);
            self.judge(&what, phase.shed <= 0.001, percent(phase.shed));
        }
        for phase in phases.iter().filter(|phase| phase.multiple > 1.0) {
            let least = if phase.multiple > 10.0 { 0.93 } else { 0.97 };
            let part = phase.goodput / phase.capacity;
            let reached = phase.offered / phase.capacity;
            self.judge(
                &format!("2. goodput at {}: at least {least} C", phase.name),
                part >= least,
                format!("{part:.3} C at {reached:.1} C offered"),
            );
        }
        for phase in phases {
            let most = BUDGET.as_secs_f64() + phase.service_p99 + SLACK;
            self.judge(
                &format!(
                    "3. accepted p99 at {}: budget + service p99 + 10 ms",
                    phase.name
                ),
                phase.accepted_p99 <= most,
                format!(
                    "{} of at most {}{}",
                    milliseconds(phase.accepted_p99),
                    milliseconds(most),
                    phase.disturbance()
                ),
            );
        }
        for phase in phases.iter().filter(|phase| phase.multiple > 1.0) {
            self.judge_refusals(phase);
        }
        self.judge(
            "6. no trips in all of these",
            trips == 0,
            format!("{trips} trips"),
        );
    }

    fn judge_refusals(&mut self, phase: &Phase) {
        let most = BUDGET.as_secs_f64() + SLACK;
        self.judge(
            &format!(
                "4. refusals at {}: p99 budget + 10 ms, p50 1 ms",
                phase.name
            ),
            phase.refused_p99 <= most && phase.refused_p50 <= 0.001,
            format!(
                "p99 {}, p50 {}{}",
                milliseconds(phase.refused_p99),
                milliseconds(phase.refused_p50),
                phase.disturbance()
            ),
        );
    }

    pub(super) fn judge_stalls(&mut self, stalls: &[Stall]) {
        for stall in stalls {
            self.judge_refusals(&stall.phase);
        }
        for stall in stalls {
            let back = stall.back_after;
            self.judge(
                &format!(
                    "5. {}: back at 0.9 C within 1.5 s, two flips",
                    stall.phase.name
                ),
                back.is_some_and(|after| after <= 1.5) && stall.flips == 2,
                format!(
                    "{}, {} flips",
                    back.map_or("never".to_owned(), |after| format!("{after:.2} s")),
                    stall.flips
                ),
            );
        }
    }

    pub(super) fn judge_literal(&mut self, literal: &Literal) {
        let Literal {
            trips,
            resets,
            epoch,
            open,
            windows,
            admitted,
        } = *literal;
        self.judge(
            "7. literal: nothing admitted while it is open",
            admitted == 0 && trips > 0 && windows > 0,
            format!("{admitted} in {windows} cooldowns"),
        );
        // The watcher looks each millisecond, when the machine lets it.
        let shortest = COOLDOWN.as_secs_f64() - 2.0 * SLACK;
        self.judge(
            "7. literal: resets equal trips, each after the cooldown",
            resets == trips && epoch == resets && open.0 >= shortest,
            format!(
                "{trips} trips, {resets} resets, open for {:.3} to {:.3} s",
                open.0, open.1
            ),
        );
    }
}
