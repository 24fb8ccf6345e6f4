//! Small line charts as SVG: one picture has a row of panels over the same values of x. They are drawn here since
//! plotters, which could, brings a browser's interfaces and futures into `Cargo.lock`.

mod axis;

use std::fmt::Write as _;

use axis::Axis;

/// The size of a panel's plane, and the room around it for labels, in pixels.
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 62.0;
const TOP: f64 = 58.0;
const BELOW: f64 = 66.0;
const COLOURS: [&str; 4] = ["#0b62a8", "#c8501e", "#3a7d34", "#7a4a9c"];

pub(crate) struct Picture<'a> {
    pub(crate) title: String,
    pub(crate) x_label: &'a str,
    /// Even steps of the logarithm; zero is drawn a step before the smallest other value.
    pub(crate) log_x: bool,
    /// How values of x are written.
    pub(crate) show_x: fn(f64) -> String,
    pub(crate) panels: Vec<Panel>,
}

pub(crate) struct Panel {
    pub(crate) title: String,
    /// A logarithmic axis; a linear one begins at zero.
    pub(crate) log_y: bool,
    pub(crate) lines: Vec<Line>,
}

/// Points in the order of their x, and what they show.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Picture<'_> {
    pub(crate) fn svg(&self) -> String {
        let width = self.panels.len() as f64 * (LEFT + WIDTH) + 24.0;
        let height = TOP + HEIGHT + BELOW;
        let mut svg = format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' \
             viewBox='0 0 {width} {height}' font-family='sans-serif' font-size='11' fill='#333'>\n\
             <rect width='100%' height='100%' fill='#fff'/>\n\
             <text x='16' y='20' font-size='14' font-weight='bold'>{}</text>\n",
            escape(&self.title)
        );
        for (number, panel) in self.panels.iter().enumerate() {
            let left = LEFT + number as f64 * (LEFT + WIDTH);
            let _ = writeln!(svg, "<g transform='translate({left},{TOP})'>");
            self.panel(panel, &mut svg);
            svg.push_str("</g>\n");
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn panel(&self, panel: &Panel, svg: &mut String) {
        let points = || panel.lines.iter().flat_map(|line| &line.points).copied();
        let x_axis = Axis::new(points().map(|(x, _)| x), self.log_x, WIDTH);
        let mut y_axis = Axis::new(points().map(|(_, y)| y), panel.log_y, HEIGHT);
        y_axis.widen();
        let y_of = |y: f64| HEIGHT - y_axis.place(y);
        let _ = writeln!(
            svg,
            "<text y='-12' font-weight='bold'>{}</text>",
            escape(&panel.title)
        );
        for tick in y_axis.ticks() {
            let y = y_of(tick);
            let _ = writeln!(
                svg,
                "<path d='M0,{y:.1}h{WIDTH}' stroke='#ddd'/><text x='-6' y='{:.1}' text-anchor='end'>{}</text>",
                y + 4.0,
                number(tick)
            );
        }
        let x_ticks = if self.log_x {
            points().map(|(x, _)| x).collect()
        } else {
            x_axis.ticks()
        };
        self.x_ticks(&x_axis, x_ticks, svg);
        for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
            let mut path = String::new();
            for &(x, y) in line.points.iter().filter(|(_, y)| y.is_finite()) {
                let (x, y) = (x_axis.place(x), y_of(y));
                let _ = write!(
                    path,
                    "{}{x:.1},{y:.1}",
                    if path.is_empty() { "M" } else { "L" }
                );
                let _ = writeln!(
                    svg,
                    "<circle cx='{x:.1}' cy='{y:.1}' r='2.5' fill='{colour}'/>"
                );
            }
            let _ = writeln!(
                svg,
                "<path d='{path}' fill='none' stroke='{colour}' stroke-width='1.5'/>"
            );
        }
        if panel.lines.len() > 1 {
            let mut x = 0.0;
            for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
                let _ = writeln!(
                    svg,
                    "<path d='M{x},{0}h14' stroke='{colour}' stroke-width='2'/><text x='{1}' y='{2}'>{3}</text>",
                    HEIGHT + 52.0,
                    x + 18.0,
                    HEIGHT + 56.0,
                    escape(&line.name)
                );
                x += 32.0 + 6.5 * line.name.chars().count() as f64;
            }
        }
    }

    /// Marks these values, where there is room for their labels.
    fn x_ticks(&self, axis: &Axis, mut values: Vec<f64>, svg: &mut String) {
        values.sort_by(f64::total_cmp);
        values.dedup();
        let mut free = f64::NEG_INFINITY;
        for value in values {
            let (x, label) = (axis.place(value), (self.show_x)(value));
            let half = 3.5 * label.chars().count() as f64;
            if x - half < free {
                continue;
            }
            free = x + half + 4.0;
            let _ = writeln!(
                svg,
                "<path d='M{x:.1},{HEIGHT}v4' stroke='#999'/><text x='{x:.1}' y='{}' text-anchor='middle'>{label}</text>",
                HEIGHT + 17.0
            );
        }
        let _ = writeln!(
            svg,
            "<path d='M0,{HEIGHT}h{WIDTH}' stroke='#999'/><text x='{}' y='{}' text-anchor='middle'>{}</text>",
            WIDTH / 2.0,
            HEIGHT + 35.0,
            escape(self.x_label)
        );
    }
}

/// In three figures at most, with thousands and millions as letters.
pub(crate) fn number(value: f64) -> String {
    let (value, letter) = match value {
        1e6.. => (value / 1e6, "M"),
        1e3.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{letter}")
}

/// Sizes in bytes, KiB or MiB.
pub(crate) fn size(bytes: f64) -> String {
    match bytes {
        1_048_576.0.. => format!("{} MiB", bytes / 1_048_576.0),
        1024.0.. => format!("{} KiB", bytes / 1024.0),
        _ => format!("{bytes} B"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
