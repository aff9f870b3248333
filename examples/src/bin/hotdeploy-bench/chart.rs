//! The run as a picture: requests per second by generation, latency, failures.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use crate::load::{Sample, quantile};
use crate::logs::Logs;

/// What happened in one stretch of time.
#[derive(Clone, Debug, Default)]
struct Bin {
    by_generation: BTreeMap<u64, u32>,
    /// Of the requests that were not meant to take long.
    times: Vec<Duration>,
    failures: u32,
}

/// Draws the samples as SVG.
pub(crate) fn draw(samples: &[Sample], logs: &Logs, began: Instant, deploys: &[Instant]) -> String {
    let end = samples
        .iter()
        .map(|s| at(s.began, began))
        .fold(1.0, f64::max);
    let mut bins = vec![Bin::default(); (end / BIN).ceil() as usize + 1];
    for sample in samples {
        let bin = &mut bins[(at(sample.began, began) / BIN) as usize];
        bin.failures += u32::from(sample.end.is_err());
        let generation = logs.generation(&sample.id).unwrap_or_default();
        *bin.by_generation.entry(generation).or_default() += 1;
        if !sample.slow {
            bin.times.push(sample.took);
        }
    }
    // The last is cut short by the end.
    bins.pop();
    for bin in &mut bins {
        bin.times.sort_unstable();
    }

    let per_second = |bin: &Bin| bin.by_generation.values().sum::<u32>() as f64 / BIN;
    let most = bins.iter().map(per_second).fold(1.0, f64::max);
    let slowest = bins
        .iter()
        .map(|bin| quantile(&bin.times, 0.99))
        .fold(1.0, f64::max);
    let x = |seconds: f64| LEFT + (seconds / end) * WIDTH;
    let mut svg = Svg::new();
    let rate = Panel {
        top: 50.0,
        height: 170.0,
        most: round_up(most),
        unit: "/s",
    };
    let latency = Panel {
        top: 260.0,
        height: 130.0,
        most: round_up(slowest),
        unit: "ms",
    };
    for panel in [&rate, &latency] {
        svg.axis(panel);
    }
    for deploy in deploys {
        let x = x(at(*deploy, began));
        svg.add(format_args!(
            r#"<line class="deploy" x1="{x:.1}" x2="{x:.1}" y1="{}" y2="{}"/>"#,
            rate.top,
            latency.top + latency.height
        ));
    }
    for (number, bin) in bins.iter().enumerate() {
        let (left, right) = (x(number as f64 * BIN), x((number + 1) as f64 * BIN));
        let mut below = 0.0;
        for (generation, count) in &bin.by_generation {
            let rate_here = f64::from(*count) / BIN;
            let (top, bottom) = (rate.y(below + rate_here), rate.y(below));
            svg.add(format_args!(
                r#"<rect class="g{}" x="{left:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"/>"#,
                generation % 4,
                right - left + 0.3,
                bottom - top
            ));
            below += rate_here;
        }
    }
    let line = |value: &dyn Fn(&Bin) -> f64, panel: &Panel| -> String {
        let points = bins.iter().enumerate().map(|(number, bin)| {
            let x = x((number as f64 + 0.5) * BIN);
            format!("{x:.1},{:.1}", panel.y(value(bin)))
        });
        points.collect::<Vec<_>>().join(" ")
    };
    svg.line("p99", &line(&|bin| quantile(&bin.times, 0.99), &latency));
    svg.line("p50", &line(&|bin| quantile(&bin.times, 0.5), &latency));
    svg.line(
        "failures",
        &line(&|bin| f64::from(bin.failures) / BIN, &rate),
    );

    let failed = samples.iter().filter(|sample| sample.end.is_err()).count();
    svg.text(
        LEFT,
        24.0,
        "title",
        &format!(
            "{} deploys in {end:.0} seconds: {} requests, {failed} failed",
            deploys.len(),
            samples.len()
        ),
    );
    svg.text(
        LEFT,
        42.0,
        "note",
        "requests per second, coloured by the generation that answered; red: failures",
    );
    svg.text(
        LEFT,
        252.0,
        "note",
        "latency: median and 99th percentile of each quarter of a second",
    );
    for second in (0..=end as u32).step_by((end as usize / 10).max(1)) {
        svg.text(x(second.into()), 408.0, "tick", &format!("{second} s"));
    }
    svg.finish()
}

fn at(moment: Instant, began: Instant) -> f64 {
    moment.saturating_duration_since(began).as_secs_f64()
}

/// The next of 1, 2, 4, 6, 8, 10, 20, 40 and so on, whose half is round too.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0].map(|step| step * power);
    steps
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(value)
}

/// One of the two diagrams.
struct Panel {
    top: f64,
    height: f64,
    most: f64,
    unit: &'static str,
}

impl Panel {
    fn y(&self, value: f64) -> f64 {
        self.top + self.height * (1.0 - value / self.most)
    }
}

struct Svg(String);

impl Svg {
    fn new() -> Self {
        Self(HEAD.to_owned())
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "{element}");
    }

    fn line(&mut self, class: &str, points: &str) {
        self.add(format_args!(
            r#"<polyline class="{class}" points="{points}"/>"#
        ));
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.add(format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{y}">{text}</text>"#
        ));
    }

    fn axis(&mut self, panel: &Panel) {
        for share in [0.0, 0.5, 1.0] {
            let value = panel.most * share;
            let y = panel.y(value);
            let right = LEFT + WIDTH;
            self.add(format_args!(
                r#"<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/>"#
            ));
            let value = format!("{value} {}", panel.unit);
            self.text(LEFT - 6.0, y + 4.0, "value", &value);
        }
    }

    fn finish(mut self) -> String {
        self.0 += "</svg>\n";
        self.0
    }
}

const HEAD: &str = r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 420" font-family="system-ui, sans-serif" font-size="11">
<style>
svg { background: #fff; }
text { fill: #57606a; } .title { font-size: 16px; font-weight: 600; fill: #1f2328; }
.value { text-anchor: end; } .tick { text-anchor: middle; }
.grid { stroke: #d0d7de; stroke-width: .5; } .deploy { stroke: #8c959f; stroke-width: .5; stroke-dasharray: 2 3; }
.g0 { fill: #54aeff; } .g1 { fill: #0969da; } .g2 { fill: #80ccff; } .g3 { fill: #218bff; }
polyline { fill: none; stroke-width: 1.5; stroke-linejoin: round; }
.p50 { stroke: #1a7f37; } .p99 { stroke: #bf8700; } .failures { stroke: #cf222e; stroke-width: 2; }
</style>
"##;

const LEFT: f64 = 90.0;
const WIDTH: f64 = 850.0;

/// In seconds.
const BIN: f64 = 0.25;
