//! Axes: where values lie, and which of them are marked.

/// Where values lie along `length` pixels.
pub(super) struct Axis {
    log: bool,
    low: f64,
    high: f64,
    length: f64,
    /// The smallest value above zero.
    least: f64,
}

impl Axis {
    pub(super) fn new(values: impl Iterator<Item = f64>, log: bool, length: f64) -> Self {
        let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        let positive = values.iter().copied().filter(|&value| value > 0.0);
        let least = positive.fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        let mut axis = Self {
            log,
            low: 0.0,
            high: 1.0,
            length,
            least,
        };
        if log {
            let lowest = values.iter().map(|&value| axis.scaled(value));
            axis.low = lowest.fold(f64::INFINITY, f64::min);
            axis.high = axis.scaled(most).max(axis.low + 0.3);
        } else if most > 0.0 {
            axis.high = most * 1.05;
        }
        axis
    }

    /// A logarithmic axis from one round value to another.
    pub(super) fn widen(&mut self) {
        if self.log {
            let (low, high) = (self.low.floor(), self.high.ceil());
            let round = [0.0, 2_f64.log10(), 5_f64.log10()];
            let below = |edge: f64| {
                round
                    .map(|part| low + part)
                    .into_iter()
                    .rfind(|&at| at <= edge)
            };
            let above = |edge: f64| {
                let last = round.map(|part| high - 1.0 + part);
                last.into_iter().find(|&at| at >= edge)
            };
            self.low = below(self.low).unwrap_or(low);
            self.high = above(self.high).unwrap_or(high);
        }
    }

    fn scaled(&self, value: f64) -> f64 {
        match self.log {
            true if value > 0.0 => value.log10(),
            true => self.least.log10() - 0.6,
            false => value,
        }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        (self.scaled(value) - self.low) / (self.high - self.low) * self.length
    }

    /// Round values along the axis.
    pub(super) fn ticks(&self) -> Vec<f64> {
        let steps = [1.0, 2.0, 5.0];
        if self.log {
            let mut decade = 10_f64.powf(self.low.floor());
            let mut ticks = Vec::new();
            while decade.log10() <= self.high {
                ticks.extend(steps.map(|step| step * decade));
                decade *= 10.0;
            }
            ticks.retain(|tick| (self.low - 1e-9..=self.high + 1e-9).contains(&tick.log10()));
            if ticks.len() > 8 {
                ticks.retain(|tick| tick.log10().fract().abs() < 1e-9);
            }
            return ticks;
        }
        let decade = 10_f64.powf((self.high / 5.0).log10().floor());
        let step = steps
            .map(|step| step * decade)
            .into_iter()
            .find(|step| self.high / step <= 6.0);
        let step = step.unwrap_or(decade * 10.0);
        let ticks = (0..10).map(|number| f64::from(number) * step);
        ticks.take_while(|&tick| tick <= self.high).collect()
    }
}
